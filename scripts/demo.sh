#!/usr/bin/env bash
# One model on three processes: builds Shoal if need be, starts two workers, lets them and a lead
# write a text together, and compares it with what one process alone writes.
#
# SHOAL_DEMO_MODEL, SHOAL_DEMO_PROMPT: another model, another beginning.
set -eu -o pipefail
. "$(dirname "$0")/lib.sh"
cd "$shoal_root"

model=${SHOAL_DEMO_MODEL:-models/demo/shoal-demo-q8_0.gguf}
prompt=${SHOAL_DEMO_PROMPT:-"It was a cold evening, and the old prince"}
shoal=build/release/shoal

scripts/build.sh
[ -f "$model" ] || die "no model $model"

folder=$(mktemp -d)
workers=()
clean_up() {
    local pid
    for pid in "${workers[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${workers[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap clean_up EXIT

start_worker() { # its address goes to $address
    local out=$folder/worker${#workers[@]}
    "$shoal" worker --listen 127.0.0.1:0 >"$out" 2>"$out.err" &
    workers+=($!)
    for _ in $(seq 200); do
        address=$(sed -n 's/^listening on //p' "$out")
        [ -z "$address" ] || return 0
        kill -0 "${workers[-1]}" 2>/dev/null || break
        sleep 0.05
    done
    die "a worker did not start: $(tail -n 1 "$out.err")"
}

generate() { # the rest of the arguments go to run; the text to stdout
    "$shoal" run "$model" -p "$prompt" -n 120 --temp 0.5 --top-k 40 --seed 4 "$@"
}

start_worker
first=$address
start_worker
second=$address
say "two workers: $first and $second; this process leads. Its text, as it comes:"
printf '%s' "$prompt"
generate --nodes "$first,$second" 2>"$folder/table" | tee "$folder/three" ||
    die "$(tail -n 1 "$folder/table")"
say "who held which layers, and how fast it was"
cat "$folder/table"

generate >"$folder/one" 2>"$folder/alone" || die "$(tail -n 1 "$folder/alone")"
cmp -s "$folder/one" "$folder/three" ||
    die "one process wrote another text: $(head -c 300 "$folder/one")"
say "one process alone writes the same $(wc -c <"$folder/one") bytes. Done."
