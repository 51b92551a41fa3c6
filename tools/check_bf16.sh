#!/bin/sh
# Whether training in bf16 reaches the loss of f32: trains one preset twice on real text with the same seed, batches and
# steps, and compares the held-out bits a byte of each domain and the loss of the last 50 steps. Ends with 1 where one is out
# by more than 1 %.
#
# Usage: tools/check_bf16.sh FILE...    the text, for example build/demo/data/*.txt (tools/demo_data.sh makes them)
# EMBER names the program (default build/release/ember), BF16_DIR the folder (default build/bf16), STEPS, BATCH, SEQ and PRESET
# what is trained (500 steps of 4 x 256 tokens of tiny-moe: some four minutes on two cores).
set -eu

ember=${EMBER:-build/release/ember}
dir=${BF16_DIR:-build/bf16}
[ $# -gt 0 ] || {
    printf '%s\n' "usage: tools/check_bf16.sh FILE..." >&2
    exit 2
}
mkdir -p "$dir"
for dtype in f32 bf16; do
    rm -rf "${dir:?}/$dtype"
    "$ember" train --preset "${PRESET:-tiny-moe}" --data "$@" --out "$dir/$dtype" --quiet --set "train.steps=${STEPS:-500}" \
        --set "train.batch=${BATCH:-4}" --set "train.seq=${SEQ:-256}" --set "train.dtype=$dtype" --set train.log_every=1
done

# "name value" of each domain, and the mean loss of the last steps.
figures() {
    tr ',{}[]' '[\n*]' <"$dir/$1/logs/eval.json" |
        sed -n 's/^[[:space:]]*"\([a-z_]*\)"[[:space:]]*:[[:space:]]*"\{0,1\}\([^"]*\)"\{0,1\}[[:space:]]*$/\1 \2/p' |
        awk '$1 == "domain" { name = $2 } $1 == "bpb" { print name, $2 }'
    sed -n 's/.*"loss":[[:space:]]*\([0-9.e+-]*\).*/\1/p' "$dir/$1/logs/train.jsonl" | tail -n 50 |
        awk '{ sum += $1 } END { printf "loss %.9f\n", sum / NR }'
}

figures f32 >"$dir/f32.txt"
figures bf16 >"$dir/bf16.txt"
printf '%-12s %12s %12s %10s\n' "" f32 bf16 "bf16 off by"
paste "$dir/f32.txt" "$dir/bf16.txt" | awk '
    { off = 100 * ($4 / $2 - 1); printf "%-12s %12.4f %12.4f %9.3f %%\n", $1, $2, $4, off; if (off > 1 || off < -1) bad = 1 }
    END { exit bad || !NR }'
