#!/bin/sh
# Mixtures on 16 clusters with a teacher each: what balancing does (experts that die without it), what combiners do, and what the z-loss does
# to logits. 16 experts of 16-16-16, one or two a point, 1000 steps of 512 points, AdamW 3e-3; five seeds.
# Usage: experiments/clusters.sh EMBER [SEEDS]. Prints mean squared error on 8192 unseen points, dead experts and the worst load above even.
# Needs a C compiler.
set -eu
ember=$1
seeds=${2:-"0 1 2 3 4"}
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -O2 -o "$work/data" "$here/clusters_data.c" -lm
"$work/data" "$work/train.safetensors" 1000 512 1
"$work/data" "$work/held.safetensors" 16 512 999

# NAME CHANNEL [LR]
run() {
    for seed in $seeds; do
        cat >"$work/recipe.json" <<END
{"model": {"model_type": "ember", "hidden_size": 16, "input_size": 16, "output_size": 4, "head_bias": true, "initializer_range": 0.25,
           "final_norm": {"type": "identity"}, "blocks": [{"type": "plain", "channel": $2}]},
 "data": {"tensors": "$work/train.safetensors", "tensors_held_out": "$work/held.safetensors"}, "seed": $seed,
 "train": {"steps": 1000, "lr": ${3:-0.003}, "weight_decay": 0, "dtype": "f32", "eval_every": 1000}}
END
        rm -rf "$work/out"
        "$ember" train "$work/recipe.json" --out "$work/out" --quiet >"$work/log" 2>"$work/warnings"
        error=$("$ember" eval "$work/out" --data "$work/held.safetensors" --json | sed -n 's/.*"loss": \([0-9.e-]*\).*/\1/p' | tail -1)
        tail -50 "$work/out/logs/train.jsonl" | sed -n 's/.*"max_violation": *\([0-9.e-]*\).*"z": *\([0-9.e+-]*\).*"dead": *\([0-9]*\).*/\1 \2 \3/p' |
            awk -v n="$1" -v s="$seed" -v e="$error" '{ v += $1; z += $2; d = $3 } END { if (NR) printf "%s seed %s: error %.4f, %d dead, load %.2f above even, logsumexp %.2f\n", n, s, e, d, v / NR, sqrt(z / NR); else printf "%s seed %s: error %.4f\n", n, s, e }'
    done
}
expert='"experts": 16, "expert": {"type": "mlp", "hidden": 16, "activation": "relu", "bias": true}'
softmax='"type": "softmax_topk", "scores": "all"'
run "no balance     " "{\"type\": \"moe\", $expert, \"router\": {$softmax, \"k\": 1}}"
run "balance loss .01" "{\"type\": \"moe\", $expert, \"router\": {$softmax, \"k\": 1, \"aux_loss\": 0.01}}"
run "balance loss .1" "{\"type\": \"moe\", $expert, \"router\": {$softmax, \"k\": 1, \"aux_loss\": 0.1}}"
run "bias rate .01  " "{\"type\": \"moe\", $expert, \"router\": {\"type\": \"sigmoid_topk\", \"k\": 1, \"renormalise\": false, \"selection_bias\": true, \"bias_rate\": 0.01}}"
run "dense of equal active" "{\"type\": \"mlp\", \"hidden\": 16, \"activation\": \"relu\", \"bias\": true}"
run "dense of equal total" "{\"type\": \"mlp\", \"hidden\": 256, \"activation\": \"relu\", \"bias\": true}"
two='"type": "softmax_topk", "k": 2, "aux_loss": 0.1'
run "2 of 16, sum   " "{\"type\": \"moe\", $expert, \"router\": {$two}}"
run "2 of 16, slots " "{\"type\": \"moe\", $expert, \"router\": {$two}, \"combiner\": {\"type\": \"concat\", \"hidden\": 32}}"
run "2 of 16, slots, relu" "{\"type\": \"moe\", $expert, \"router\": {$two}, \"combiner\": {\"type\": \"concat\", \"hidden\": 32, \"activation\": \"relu\"}}"
run "2 of 16, ranks " "{\"type\": \"moe\", $expert, \"router\": {$two}, \"combiner\": {\"type\": \"concat\", \"hidden\": 32, \"order\": \"rank\"}}"
run "2 of 16, slots without weights" "{\"type\": \"moe\", $expert, \"router\": {$two}, \"combiner\": {\"type\": \"concat\", \"hidden\": 32, \"gated\": false}}"
for rate in 0.003 0.03; do
    for z in 0 0.001 0.01; do
        run "z-loss $z at rate $rate" "{\"type\": \"moe\", $expert, \"router\": {$softmax, \"k\": 1, \"aux_loss\": 0.1, \"z_loss\": $z}}" $rate
    done
done
