#!/bin/sh
# Fuzzes one parser from its committed corpus; what it finds stays under build/fuzz/findings/TARGET.
# Usage: tools/fuzz.sh TARGET [SECONDS]   (after cmake --preset fuzz && cmake --build --preset fuzz)
set -eu
cd "$(dirname "$0")/.."
target=$1
seconds=${2:-60}
work=build/fuzz/findings/$target
mkdir -p "$work/corpus"
if build/fuzz/fuzz/"$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$work/" "$work/corpus" "tests/fuzz/corpus/$target" >"$work/log" 2>&1; then
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log") inputs, nothing found"
else
    tail -n 40 "$work/log"
    echo "$target: failed; the input and the log are in $work"
    exit 1
fi
