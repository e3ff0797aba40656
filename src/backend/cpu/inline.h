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
#define NO_INLINE __attribute__((noinline))

/* What is written before this is not mixed with what comes after it. GCC's scheduler would spread
 * the loads of the next round among the multiply-adds of this one, and Zen 4 then deals those out
 * unevenly between its two pipes: 16 of them take 17 to 18 cycles. */
#define IN_THIS_ORDER() __asm__ volatile("")

/* What was read from memory is read again after this, not kept in a register: where there are too
 * few, compilers keep it in a vector register, and what comes from there waits in line behind the
 * multiply-adds. */
#define READ_AGAIN() __asm__ volatile("" : : : "memory")

#endif
