#!/bin/sh
# Event XOR: the parity of bit strings told as runs with their lengths as time spans (Lechner and Hasani 2020, arXiv:2006.04418), at reduced size:
# 512,000 strings, CfC of 64 units with a backbone of 64, AdamW. CfC has to get 97 % of 2000 unseen strings right; LTC, which forgets, guesses.
# Usage: experiments/event_xor.sh EMBER [SEEDS [cfc|ltc|both]]. FULL=1: 192 units, a backbone of 128, RMSprop, 200 rounds of 100,000 strings.
# Needs a C compiler.
set -eu
ember=$1
seeds=${2:-"0 1 2"}
which=${3:-both}
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -O2 -o "$work/data" "$here/event_xor_data.c"
if [ "${FULL:-0}" = 1 ]; then
    batches=782 units=192 backbone=128 cfc_steps=156400 ltc_steps=15640
    how='"lr": 0.05, "optimizer": "rmsprop", "schedule": {"type": "exponential", "final": 3.5e-5}'
else
    batches=4000 units=64 backbone=64 cfc_steps=60000 ltc_steps=1000
    how='"lr": 0.001, "optimizer": "adamw", "beta2": 0.999'
fi
"$work/data" "$work/train.safetensors" $batches 128 1
"$work/data" "$work/held.safetensors" 1 2000 999
status=0

# NAME CELL STEPS
run() {
    for seed in $seeds; do
        cat >"$work/recipe.json" <<END
{"model": {"model_type": "ember", "hidden_size": 1, "output_size": 2, "head_bias": true, "final_norm": {"type": "identity"},
           "blocks": [{"type": "plain", "sequence": $2}]},
 "data": {"tensors": "$work/train.safetensors", "tensors_held_out": "$work/held.safetensors"}, "seed": $seed,
 "train": {"steps": $3, $how, "weight_decay": 0, "dtype": "f32", "eval_every": 500, "stop_right": 0.975}}
END
        rm -rf "$work/out"
        begin=$(date +%s)
        "$ember" train "$work/recipe.json" --out "$work/out" --quiet >"$work/log"
        end=$(date +%s)
        steps=$(wc -l <"$work/out/logs/train.jsonl")
        share=$(sed -n 's/.* right (\([0-9.]*\) %).*/\1/p' "$work/log")
        echo "$1 seed $seed: $share % right after $steps steps, $((end - begin)) s"
        [ "$1" = LTC ] || awk -v s="$share" 'BEGIN { exit !(s >= 97) }' || status=1
    done
}
[ "$which" = ltc ] || run CfC "{\"type\": \"cfc\", \"units\": $units, \"backbone_units\": $backbone, \"activation\": \"relu\"}" $cfc_steps
[ "$which" = cfc ] || run LTC "{\"type\": \"ltc\", \"units\": $units}" $ltc_steps
exit $status
