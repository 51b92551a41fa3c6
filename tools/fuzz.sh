#!/bin/sh
# Fuzzes one parser from its committed corpus; what it finds stays under build/fuzz/findings/TARGET.
# Usage: tools/fuzz.sh TARGET [SECONDS]   (after cmake --preset fuzz && cmake --build --preset fuzz)
set -eu
cd "$(dirname "$0")/.."
target=$1
seconds=${2:-60}
work=build/fuzz/findings/$target
mkdir -p "$work/corpus"
dictionary=
[ ! -f "tests/fuzz/$target.dict" ] || dictionary=-dict=tests/fuzz/$target.dict
export ASAN_OPTIONS="quarantine_size_mb=64:${ASAN_OPTIONS:-}"
# shellcheck disable=SC2086 # no dictionary is no word
if build/fuzz/fuzz/"$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=512 -print_final_stats=1 \
    -artifact_prefix="$work/" $dictionary "$work/corpus" "tests/fuzz/corpus/$target" >"$work/log" 2>&1; then
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log") inputs, nothing found"
else
    tail -n 40 "$work/log"
    echo "$target: failed; the input and the log are in $work"
    exit 1
fi
