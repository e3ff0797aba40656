#!/usr/bin/env bash
# The kernels of 64-bit Arm: cross-compiled into BUILD_DIR and run under qemu-user on three
# processors, one with every extension, one without I8MM, one without dot products either. Which
# instruction sets are found on each must be right, or all of this could pass with none.
# Skipped, with a message, where the cross compiler or the emulator is missing.
#
# usage: aarch64_test.sh BUILD_DIR
set -eu
build=$1
for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: no $tool (packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)"
        exit 77
    fi
done

cmake --preset aarch64 -B "$build" -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc >"$build.log" ||
    { cat "$build.log"; exit 1; }
cmake --build "$build" -j 2 >>"$build.log" 2>&1 || { tail -n 60 "$build.log"; exit 1; }

# A processor, and the instruction sets that it does not have.
check() {
    local cpu=$1 absent=$2 out=$build/$1.txt found ok=yes
    QEMU_CPU=$cpu qemu-aarch64 -L /usr/aarch64-linux-gnu "$build/src/backend/kernels_check" --quick \
        >"$out" || ok=
    found=$(sed -n 's/ *not on this processor//p' "$out" | tr '\n' ' ')
    { echo "== kernels_check on $cpu, lacking: $found"; cat "$out"; } >"$out.all"
    cat "$out.all"
    [ "$found" = "$absent" ] || { echo "$cpu: expected to lack \"$absent\""; return 1; }
    [ -n "$ok" ]
}
check cortex-a72 "dotprod i8mm " & a72=$!
check neoverse-n1 "i8mm " & n1=$!
check max ""
wait $a72
wait $n1

echo "== the other tests on max"
QEMU_CPU=max ctest --test-dir "$build" -R '^(tensor|backend)\.' -E kernels_check -j 2 --output-on-failure
