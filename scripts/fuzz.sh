#!/usr/bin/env bash
# Looks for new inputs that break a parser: every libFuzzer entry for a while, from its corpus.
# usage: scripts/fuzz.sh [SECONDS [ENTRY...]]      (60 seconds each; default: all entries)
#
# What breaks is left in build/fuzz/findings/; a fixed one belongs into tests/corpora/. New inputs
# that reach new code collect in build/fuzz/corpora/.
set -eu
. "$(dirname "$0")/lib.sh"
cd "$shoal_root"

seconds=${1:-60}
[ $# -eq 0 ] || shift
case $seconds in '' | *[!0-9]*) echo "usage: scripts/fuzz.sh [SECONDS [ENTRY...]]" >&2; exit 64 ;; esac

scripts/build.sh --preset fuzz --target all
mapfile -t entries < <(find build/fuzz -name '*_fuzz' -type f -perm -u+x | sort)
[ ${#entries[@]} -gt 0 ] || die "no fuzz entry was built in build/fuzz"

mkdir -p build/fuzz/findings
failed=()
for entry in "${entries[@]}"; do
    name=$(basename "$entry")
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    corpus=tests/corpora/${name%_fuzz}
    [ -d "$corpus" ] || die "$name has no corpus: $corpus expected"
    mkdir -p "build/fuzz/corpora/$name"
    say "$name for $seconds s"
    "$entry" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/findings/$name-" "build/fuzz/corpora/$name" "$corpus" \
        >"build/fuzz/$name.log" 2>&1 || failed+=("$name")
    grep -E 'stat::number_of_executed_units|SUMMARY' "build/fuzz/$name.log" || true
done
[ ${#failed[@]} -eq 0 ] || die "found something: ${failed[*]} (build/fuzz/findings, build/fuzz/*.log)"
say "nothing found"
