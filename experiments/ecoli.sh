#!/bin/sh
# Next-nucleotide loss on the genome of Escherichia coli 536 (Debian's bowtie-examples) at growing context: HyenaDNA and attention with rotary positions,
# two blocks of equal width and about equal size, as many tokens and steps for both. The last 2 % of the genome are held out.
# Usage: experiments/ecoli.sh EMBER [SEEDS [CONTEXTS [STEPS]]]. FULL=1: width 256, 8192 steps, contexts to 32,768.
# A package that is not installed is downloaded and unpacked, not installed.
set -eu
ember=$1
seeds=${2:-0}
contexts=${3:-"256 1024 4096"}
steps=${4:-250}
width=128
tokens=8192
if [ "${FULL:-0}" = 1 ]; then
    width=256 steps=${4:-8192} tokens=32768
    contexts=${3:-"256 1024 4096 16384 32768"}
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

file=/usr/share/doc/bowtie/examples/genomes/NC_008253.fna.gz
if [ ! -s "$file" ]; then
    (cd "$work" && apt-get -q=2 download bowtie-examples >download.log 2>&1 && dpkg-deb -x bowtie-examples_*.deb .) || {
        echo "cannot get the package bowtie-examples: try  apt-get update && apt-get install bowtie-examples" >&2
        exit 1
    }
    file=$work$file
fi
gzip -dc "$file" | awk '!/^>/' | tr -d '\n' >"$work/genome.txt"

# NAME MODEL CONTEXT SEED
run() {
    cat >"$work/recipe.json" <<END
{"model": $2, "data": {"sources": ["$work/genome.txt"], "tokenizer": "dna", "eos": false}, "seed": $4,
 "train": {"steps": $steps, "batch": $((tokens / $3)), "seq": $3, "lr": 2e-3, "weight_decay": 0.1, "beta2": 0.99, "dtype": "f32",
           "eval_every": $steps, "final_eval_tokens": 65536}}
END
    rm -rf "$work/out"
    begin=$(date +%s)
    "$ember" train "$work/recipe.json" --out "$work/out" --quiet --json >"$work/result.json"
    end=$(date +%s)
    parameters=$("$ember" inspect "$work/out" --json | sed -n 's/.*"parameters": *\([0-9]*\).*/\1/p' | head -n 1)
    awk -v name="$1" -v context="$3" -v seed="$4" -v size="$parameters" -v s=$((end - begin)) '
        /"nats":/ && !seen++ { match($0, /[0-9.]+,?$/); nats = substr($0, RSTART) + 0 }
        END { printf "%s, context %d, seed %d: %.4f nats a nucleotide (%.4f bits), %s parameters, %d s\n", name, context, seed, nats, nats / log(2), size, s }' "$work/result.json"
}

for context in $contexts; do
    for seed in $seeds; do
        run HyenaDNA "{\"model_type\": \"hyenadna\", \"d_model\": $width, \"d_inner\": $((4 * width)), \"n_layer\": 2, \"vocab_size\": 12,
            \"max_seq_len\": $context, \"emb_dim\": 5, \"activation_freq\": 10, \"embed_dropout\": 0}" "$context" "$seed"
        run attention "{\"model_type\": \"ember\", \"hidden_size\": $width, \"vocab_size\": 16, \"final_norm\": \"layernorm\", \"blocks\": [{\"repeat\": 2, \"blocks\": [
            {\"type\": \"pre_norm\", \"norm\": \"layernorm\", \"sequence\": {\"type\": \"attention\", \"heads\": 4},
             \"channel\": {\"type\": \"mlp\", \"hidden\": $((4 * width)), \"activation\": \"gelu_tanh\", \"bias\": true}}]}]}" "$context" "$seed"
    done
done
