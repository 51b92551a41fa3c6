#!/bin/sh
# Multi-query associative recall, selective copying and induction heads for sequence mixers: two blocks of width 64, nothing else but
# the mixer that differs. A run ends where 99 % of 1024 unseen sequences' labels are right, or after its steps.
# Usage: experiments/recall.sh EMBER TASK [MIXERS] [SEEDS]   (TASK: mqar, copying, induction; STEPS=N, LENGTH=N for other sizes)
# Needs a C compiler. Prints a line a run: mixer, seed, share that is right, steps, seconds.
set -eu
ember=$1
task=$2
mixers=${3:-"attention hyena mamba mamba2 short_conv linear_attention"}
seeds=${4:-"0"}
length=${LENGTH:-64}
steps=${STEPS:-6000}
batch=64
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -O2 -o "$work/data" "$here/recall_data.c"
"$work/data" "$task" "$work/held.safetensors" 16 "$batch" "$length" 1000000

mixer() {
    case $1 in
    attention) echo '{"type": "attention", "heads": 2}' ;;
    hyena) echo "{\"type\": \"hyena\", \"filter_length\": $length}" ;;
    mamba2) echo '{"type": "mamba2", "d_state": 64, "head_dim": 32}' ;;
    linear_attention) echo '{"type": "linear_attention", "heads": 2}' ;;
    *) echo "{\"type\": \"$1\"}" ;;
    esac
}

for seed in $seeds; do
    "$work/data" "$task" "$work/train.safetensors" "$steps" "$batch" "$length" "$seed"
    for name in $mixers; do
        m=$(mixer "$name")
        block="{\"type\": \"pre_norm\", \"sequence\": $m, \"channel\": {\"type\": \"swiglu\", \"hidden\": 128}}"
        cat >"$work/recipe.json" <<END
{"model": {"model_type": "ember", "vocab_size": 64, "hidden_size": 64, "blocks": [$block, $block]},
 "data": {"tensors": "$work/train.safetensors", "tensors_held_out": "$work/held.safetensors"}, "seed": $seed,
 "train": {"steps": $steps, "lr": ${LR:-0.003}, "eval_every": 50, "stop_right": 0.99}}
END
        rm -rf "$work/out"
        begin=$(date +%s.%N)
        "$ember" train "$work/recipe.json" --out "$work/out" --quiet >/dev/null
        end=$(date +%s.%N)
        tail -n 1 "$work/out/logs/eval.jsonl" | tr ',{}' '\n' | awk -v name="$name" -v seed="$seed" -v s="$begin" -v e="$end" '
            /"step"/ { sub(/.*: */, ""); step = $0 }
            /"accuracy"/ { sub(/.*: */, ""); right = $0 }
            END { printf "%-18s seed %s  %6.2f %% right after %s steps, %.0f s\n", name, seed, 100 * right, step, e - s }'
    done
done
