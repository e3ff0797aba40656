#!/usr/bin/env bash
# Everything that has to hold: builds the release tree, the tree under AddressSanitizer and UBSan and
# the one under ThreadSanitizer, and runs their tests as one ctest run, whose summary comes last.
# Fuzzing that looks for new inputs is scripts/fuzz.sh; here the known ones are replayed.
#
# Arguments go to ctest: `scripts/test.sh -L e2e`, `scripts/test.sh -R release/base`.
# Tests whose data is not there (../shared) are skipped, and say so.
set -eu
. "$(dirname "$0")/lib.sh"
cd "$shoal_root"

# What ThreadSanitizer watches: the modules with threads of their own. It cannot see into the
# distribution's gRPC, so links are inproc there and no process talks to another.
tsan_tests='^(base|backend|stage|link|pipeline|engine|sim|sampler|api)\.'

# The end-to-end tests drive the binary from Python; what they need is installed once, into .venv.
need_venv() {
    local wanted=tests/e2e/requirements.txt
    ! cmp -s "$wanted" .venv/requirements.txt || return 0
    need_packages python3:python3 python3-venv
    say "installing pytest and the openai client into .venv"
    mkdir -p build
    { python3 -m venv --clear .venv && .venv/bin/python -m pip install -q -r "$wanted"; } \
        >build/venv.log 2>&1 || die "cannot fill .venv: $(tail -n 1 build/venv.log)"
    cp "$wanted" .venv/requirements.txt
}

need_venv
for preset in release debug tsan; do
    scripts/build.sh --preset "$preset" --tests
done
python3 scripts/merge_ctest.py build/all release=build/release debug=build/debug \
    "tsan=build/tsan,-R,$tsan_tests"
say "running the tests of the three trees"
[ -d ../shared ] || say "no ../shared beside the clone: tests on its data will be skipped"
exec ctest --test-dir build/all --output-on-failure --no-label-summary -j "$(nproc)" "$@"
