#!/bin/sh
# The sine task of ncps: sin t, cos t to sin 2t, 400 epochs of Adam at 0.01. Five seeds each; mean squared errors.
# Usage: experiments/sine.sh EMBER [SEEDS]. Needs a C compiler. Fails where LTC is not below 1e-3, or CfC(32) not below 1e-5.
set -eu
ember=$1
seeds=${2:-"0 1 2 3 4"}
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -O2 -o "$work/data" "$here/sine_data.c" -lm
"$work/data" "$work/sine.safetensors"
status=0

# NAME LIMIT CELL
run() {
    for seed in $seeds; do
        cat >"$work/recipe.json" <<END
{"model": {"model_type": "ember", "hidden_size": 2, "output_size": 1, "output_matrix": false,
           "final_norm": {"type": "identity"}, "blocks": [{"type": "plain", "sequence": $3}]},
 "data": {"tensors": "$work/sine.safetensors"}, "seed": $seed,
 "train": {"steps": 400, "lr": 0.01, "schedule": "constant", "warmup": 0, "clip": 1, "weight_decay": 0, "beta2": 0.999, "dtype": "f32"}}
END
        rm -rf "$work/out"
        begin=$(date +%s.%N)
        "$ember" train "$work/recipe.json" --out "$work/out" --quiet >/dev/null
        end=$(date +%s.%N)
        sed -n 's/.*"loss": *\([^,}]*\).*/\1/p' "$work/out/logs/train.jsonl" |
            awk -v name="$1" -v seed="$seed" -v limit="$2" -v s="$begin" -v e="$end" '
                NR == 1 || $1 < best { best = $1 }
                $1 < limit && !first { first = NR }
                END { printf "%s seed %s: best %.1e, last %.1e, below %s first in epoch %s, %.1f s\n", name, seed, best, $1, limit, first ? first : "none", e - s
                      exit !first }' || status=1
    done
}
run "LTC AutoNCP(16,1)" 1e-3 '{"type": "ltc", "wiring": "auto:16,1", "projection": false}'
run "CfC AutoNCP(16,1)" 1 '{"type": "cfc", "wiring": "auto:16,1", "projection": false}'
run "CfC(32)" 1e-5 '{"type": "cfc", "units": 32, "output_size": 1}'
exit $status
