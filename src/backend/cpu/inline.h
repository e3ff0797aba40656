/* How kernels ask the compiler for straight code. */
#ifndef SHOAL_BACKEND_CPU_INLINE_H
#define SHOAL_BACKEND_CPU_INLINE_H

/* Loops over a constant count that must become straight code, so that arrays of vectors stay in
 * registers; the two compilers spell the wish differently. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define FORCE_INLINE static inline __attribute__((always_inline))

#endif
