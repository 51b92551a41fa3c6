#!/bin/sh
# Whether forecasts are true: trains a matrix of small configs, and prints what memory and time were foretold
# before the first step beside what they took (memory: VmHWM). Then the same of memory for inference, `ember
# plan` beside `ember generate`. Ends with 1 if memory is out by more than 5 % or time by more than 20 %.
#
# Usage: tools/check_forecasts.sh [NAME...]    default: all configs, about four minutes on two cores
# EMBER names the program (default build/release/ember), FORECAST_DIR the folder (default build/forecasts).
# Half a second does not count: it may be one fsync. A busy machine makes times untrue: a step measured beside a
# neighbour tells nothing of one without.
set -eu

ember=${EMBER:-build/release/ember}
dir=${FORECAST_DIR:-build/forecasts}
root=$(cd "$(dirname "$0")/.." && pwd)
wanted=${*:-}
bad=0

fail() {
    printf '%s\n' "check_forecasts: $*" >&2
    exit 1
}
[ -x "$ember" ] || fail "$ember: no such program"
mkdir -p "$dir"
cat "$root"/docs/*.md "$root"/src/*/*.[ch] >"$dir/text.txt"

hybrid='"num_hidden_layers": 6, "layer_types": ["conv", "conv", "full_attention", "conv", "conv", "full_attention"],
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 65536'
dense="\"model_type\": \"lfm2\", \"block_auto_adjust_ff_dim\": false, $hybrid"
moe="\"model_type\": \"lfm2_moe\", \"num_dense_layers\": 1, \"num_experts\": 8, \"num_experts_per_tok\": 2, $hybrid"
text="\"sources\": [\"$dir/text.txt\"]"
bytes="$text, \"tokenizer\": \"bytes\""

# Random ids below 256 for 6 steps of 4 x 128, as safetensors: the head's size, the head, 32-bit numbers.
write_ids() {
    {
        printf '\120\000\000\000\000\000\000\000%-80s' '{"input_ids":{"dtype":"I32","shape":[6,4,128],"data_offsets":[0,12288]}}'
        # shellcheck disable=SC2059
        printf "$(awk 'BEGIN { srand(1); for (i = 0; i < 3072; i++) printf "\\%03o\\000\\000\\000", int(rand() * 256) }')"
    } >"$1"
}

# number FILE BLOCK KEY: of {"BLOCK": {"KEY": number}}
number() {
    awk -v block="\"$2\"" -v key="\"$3\"" '
        index($0, block ":") { inside = 1 }
        inside && index($0, key ":") { gsub(/[^0-9.eE+-]/, "", $2); print $2; exit }' "$1"
}

# row NAME WHAT FORETOLD TOOK LIMIT: numbers with their difference in percent; notes what is out of bounds.
row() {
    awk -v name="$1" -v what="$2" -v foretold="$3" -v took="$4" -v limit="$5" 'BEGIN {
        off = 100 * (foretold / took - 1)
        wrong = (off > limit + 0 || off < -limit)
        if (what ~ /, s$/ && foretold - took < 0.5 && took - foretold < 0.5) wrong = 0
        printf "| %s | %s | %.1f | %.1f | %+.1f %% |%s\n", name, what, foretold, took, off, (wrong ? " out of bounds" : "")
        exit wrong
    }' || bad=1
}

mib() { awk -v v="$1" 'BEGIN { print v / 1048576 }'; }

# config NAME MODEL DATA TRAIN
config() {
    case " $wanted " in
    "  " | *" $1 "*) ;;
    *) return 0 ;;
    esac
    printf '{"model": {%s}, "data": {%s}, "train": {"final_eval_tokens": 16384, %s}, "seed": 1}\n' "$2" "$3" "$4" >"$dir/$1.json"
    rm -rf "${dir:?}/$1"
    "$ember" train "$dir/$1.json" --out "$dir/$1" --json --quiet >"$dir/$1.out" || fail "$1 was not trained"
    row "$1" "training, MiB" "$(mib "$(number "$dir/$1.out" foretold memory_bytes)")" \
        "$(mib "$(number "$dir/$1.out" measured memory_bytes)")" 5
    row "$1" "training, s" "$(number "$dir/$1.out" foretold seconds)" "$(number "$dir/$1.out" measured seconds)" 20
}

# The peak of a run of `ember generate`, by looking until it ends.
inference() {
    [ -d "$dir/$1" ] || return 0
    "$ember" plan "$dir/$1" --batch 1 --seq 512 --json |
        awk '/"inference":/ { inside = 1 } inside' >"$dir/$1.plan"
    "$ember" generate "$dir/$1" --prompt-ids "3 17 20 21" -n 508 --temperature 1 --ids --quiet >/dev/null 2>&1 &
    pid=$!
    peak=0
    while now=$(awk '/VmHWM:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) && [ -n "$now" ]; do
        peak=$now
        sleep 0.01
    done
    wait "$pid" || fail "$1 did not generate"
    row "$1" "inference, MiB" "$(mib "$(number "$dir/$1.plan" memory_bytes total)")" "$(mib "$((peak * 1024))")" 5
}

write_ids "$dir/ids.safetensors"
printf '| config | what | foretold | took | off by |\n| --- | --- | ---: | ---: | ---: |\n'
wide='"hidden_size": 256, "intermediate_size": 768'
config moe-bf16 "$moe, $wide, \"moe_intermediate_size\": 256, \"vocab_size\": 4096" "$text" '"batch": 8, "seq": 256, "steps": 12'
config moe-recomputed "$moe, $wide, \"moe_intermediate_size\": 256, \"vocab_size\": 4096" "$bytes" '"batch": 8, "seq": 256, "steps": 10, "recompute": true'
config dense-bytes "$dense, $wide, \"vocab_size\": 259" "$bytes" '"batch": 8, "seq": 256, "steps": 15'
config dense-f32 "$dense, $wide, \"vocab_size\": 4096" "$text" '"batch": 4, "seq": 256, "steps": 10, "dtype": "f32"'
config dense-16k "$dense, $wide, \"vocab_size\": 16384" "$bytes" '"batch": 4, "seq": 256, "steps": 10'
config dense-65k "$dense, $wide, \"vocab_size\": 65536" "$bytes" '"batch": 4, "seq": 128, "steps": 8'
config accumulated "$dense, $wide, \"vocab_size\": 4096" "$bytes" '"batch": 16, "seq": 256, "steps": 6, "accumulate": 4'
config long "$dense, $wide, \"vocab_size\": 4096" "$bytes" '"batch": 1, "seq": 4096, "steps": 5'
config ids "$dense, $wide, \"vocab_size\": 256" "\"ids\": \"$dir/ids.safetensors\"" '"lr": 0.001'
config tiny "$dense, \"hidden_size\": 64, \"intermediate_size\": 128, \"vocab_size\": 259" "$bytes" '"batch": 32, "seq": 32, "steps": 200'
config states "$moe, $wide, \"moe_intermediate_size\": 256, \"vocab_size\": 4096" "$bytes" '"batch": 4, "seq": 128, "steps": 20, "save_every": 4'
config minutes "$moe, $wide, \"moe_intermediate_size\": 256, \"vocab_size\": 4096" "$bytes" '"batch": 4, "seq": 256, "minutes": 0.4'
for name in moe-bf16 dense-65k dense-f32; do
    inference "$name"
done
exit $bad
