#!/usr/bin/env bash
# From a fresh clone to build/release/shoal: installs what is missing on Debian 12 or Ubuntu 24.04
# (through apt, as root or with sudo), then configures and builds. Run again it only builds.
set -eu
. "$(dirname "$0")/lib.sh"

usage() {
    cat <<'TXT'
usage: scripts/build.sh [--preset release|debug|tsan|fuzz] [--target NAME] [--tests] [-j N] [-v]
  --preset NAME  which tree to build: build/NAME (release)
  --target NAME  what to build in it (shoal; with --tests everything)
  --tests        the tests too, and what they need to run
  -j N           jobs at once (one per processor)
  -v             show the compiler's output instead of keeping it in build/NAME.log
TXT
}

preset=release target= tests= verbose= jobs=$(nproc)
while [ $# -gt 0 ]; do
    case $1 in
    --tests | -v | -h | --help) ;;
    *) [ $# -ge 2 ] || { usage >&2; exit 64; } ;;
    esac
    case $1 in
    --preset) preset=$2; shift ;;
    --target) target=$2; shift ;;
    --tests) tests=yes ;;
    -j) jobs=$2; shift ;;
    -v) verbose=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
    esac
    shift
done
cd "$shoal_root"

# cmocka is small and the tree is configured with its tests, so it belongs to every build.
need_packages gcc:gcc libc6-dev cmake:cmake ninja:ninja-build pkg-config:pkgconf ca-certificates \
    libgrpc-dev nanopb libnanopb-dev protoc:protobuf-compiler python3-protobuf \
    libmicrohttpd-dev libcurl4-openssl-dev libjansson-dev libxxhash-dev libcmocka-dev
[ "$preset" != fuzz ] || need_packages clang:clang llvm-symbolizer:llvm
[ -z "$tests" ] || need_packages python3:python3 python3-venv
[ -z "$tests" ] || [ "$(uname -m)" != x86_64 ] || # the Arm kernels are checked under emulation
    need_packages aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
        qemu-aarch64:qemu-user
cmake_found=$(cmake --version | sed -n '1s/.* //p')
version_at_least "$cmake_found" 3.23 || die "cmake 3.23 or newer expected, found $cmake_found"
cargo=$(need_cargo)
PATH=$(dirname "$cargo"):$PATH # its rustc is the one that cargo takes
export PATH

log=build/$preset.log
step() { # runs a command, its output in the log; shows the end of it where it fails
    if [ -n "$verbose" ]; then
        "$@" || die "failed: $*"
    elif ! "$@" >>"$log" 2>&1; then
        tail -n 40 "$log" >&2
        die "failed: $* (all of its output: $log)"
    fi
}

mkdir -p build
: >"$log"
[ -n "$target" ] || target=$([ -n "$tests" ] && echo all || echo shoal)
say "building $target in build/$preset with $("$cargo" --version | cut -d ' ' -f 1-2)"
step cmake --preset "$preset" -DCARGO="$cargo"
step cmake --build "build/$preset" --target "$target" -j "$jobs"
[ ! -x "build/$preset/shoal" ] || say "built build/$preset/shoal"
