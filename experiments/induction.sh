#!/bin/sh
# Induction heads, trained at 256 tokens and tested from 64 to 1,048,576 (attention: to 65,536): two blocks of width 64 that differ in
# their sequence mixer alone. Long rows go through the carried state 4096 tokens at a time.
# Usage: experiments/induction.sh EMBER [MIXERS] [SEEDS]   (MIXERS: mamba, attention; STEPS=N, LR=X; MODELS=DIR keeps trained folders)
# Needs a C compiler. Prints a line a run and one a length: rows that are right, seconds; and the bytes of the state.
set -eu
ember=$1
mixers=${2:-"mamba attention"}
seeds=${3:-"0"}
steps=${STEPS:-3000}
batch=64
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
models=${MODELS:-$work}
cc -O2 -o "$work/data" "$here/recall_data.c"
cc -O2 -o "$work/score" "$here/recall_score.c"

train() { # NAME SEED
    case $1 in
    attention) m='{"type": "attention", "heads": 2}' ;;
    *) m="{\"type\": \"$1\"}" ;;
    esac
    "$work/data" induction "$work/held.safetensors" 16 "$batch" 256 1000000
    "$work/data" induction "$work/train.safetensors" "$steps" "$batch" 256 "$2"
    block="{\"type\": \"pre_norm\", \"sequence\": $m, \"channel\": {\"type\": \"swiglu\", \"hidden\": 128}}"
    cat >"$work/recipe.json" <<END
{"model": {"model_type": "ember", "vocab_size": 64, "hidden_size": 64, "blocks": [$block, $block]},
 "data": {"tensors": "$work/train.safetensors", "tensors_held_out": "$work/held.safetensors"}, "seed": $2,
 "train": {"steps": $steps, "lr": ${LR:-0.003}, "eval_every": 100, "stop_right": 0.999}}
END
    "$ember" train "$work/recipe.json" --out "$models/$1-$2" --quiet >/dev/null
    rm "$work/train.safetensors"
}

for seed in $seeds; do
    for name in $mixers; do
        model=$models/$name-$seed
        begin=$(date +%s)
        [ -d "$model" ] || train "$name" "$seed"
        end=$(date +%s)
        tail -n 1 "$model/logs/eval.jsonl" | tr ',{}' '\n' | awk -v name="$name" -v seed="$seed" -v s="$((end - begin))" '
            /"step"/ { sub(/.*: */, ""); sub(/.*:/, ""); step = $0 }
            /"accuracy"/ { sub(/.*:/, ""); right = $0 }
            END { printf "%s seed %s  %.2f %% right at 256 after %s steps, %s s\n", name, seed, 100 * right, step, s }'
        "$ember" plan "$model" | sed -n 's/^  state  *\(.* a sequence.*\)/  state \1/p'
        length=64
        while [ "$length" -le 1048576 ]; do
            if [ "$name" = attention ] && [ "$length" -gt 65536 ]; then break; fi
            rows=$((4194304 / length))
            [ "$rows" -le 256 ] || rows=256
            [ "$name" != attention ] || [ "$length" -le 4096 ] || rows=$((262144 / length))
            "$work/data" induction "$work/ids.safetensors" 0 "$rows" "$length" "$((2000000 + length))"
            begin=$(date +%s)
            "$ember" forward "$model" --in "$work/ids.safetensors" --out "$work/logits.safetensors" --chunk 4096 --quiet >/dev/null
            end=$(date +%s)
            "$work/score" "$work/ids.safetensors" "$work/logits.safetensors" | awk -v n="$length" -v s="$((end - begin))" '
                { printf "  %8d tokens  %d of %d right (%.1f %%), %s s\n", n, $1, $2, 100 * $1 / $2, s }'
            length=$((length * 4))
        done
    done
done
