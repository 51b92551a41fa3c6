#!/bin/sh
# What a busy machine and a second thread make of training and decoding.
#
#   bench/busy.sh [EMBER [LLAMA_BENCH MODEL.gguf]]
#
# "kept": the speed beside another process that spins at the same priority, as a share of the speed
# without it, in windows of a second (training: of a step) that alternate. "2 threads": how many
# times the speed of one thread two reach, the better of three alternating runs of each. With
# llama.cpp's llama-bench and a model, its decoding is measured beside a spinning shell too.
set -eu

cd "$(dirname "$0")/.."
ember=${1:-build/release/ember}
batch=${BATCH:-4}

field() { # of flat JSON on stdin
    tr ',{}' '\n' | sed -n "s/^ *\"$1\": *\([0-9.eE+-]*\).*/\1/p" | head -n 1
}

row() { # NAME JSON
    printf '%-28s %10.1f tokens/s   kept %.2f (windows %.2f to %.2f)\n' "$1" \
        "$(echo "$2" | field tokens_per_s)" "$(echo "$2" | field kept)" \
        "$(echo "$2" | field kept_least)" "$(echo "$2" | field kept_most)"
}

train() { # CONFIG OPTIONS...
    config=$1
    shift
    "$ember" bench train --config "bench/configs/$config" --batch "$batch" --seq 512 --json "$@"
}

greater() {
    awk -v a="$1" -v b="$2" 'BEGIN { print (a > b ? a : b) }'
}

for config in lfm2-30m lfm2-moe-80m; do
    row "train $config" "$(train $config --steps 2 --busy)"
    row "decode $config" "$("$ember" bench decode bench/configs/$config --seconds 3 --busy --json)"
    one=0 two=0
    for _ in 1 2 3; do
        one=$(greater "$one" "$(train $config --steps 2 --threads 1 | field tokens_per_s)")
        two=$(greater "$two" "$(train $config --steps 2 --threads 2 | field tokens_per_s)")
    done
    awk -v n="train $config" -v a="$one" -v b="$two" \
        'BEGIN { printf "%-28s %10.1f tokens/s   2 threads %.2f times\n", n, a, b / a }'
done

[ $# -ge 3 ] || exit 0
decode() {
    "$2" -m "$3" -p 0 -n 64 -r 3 -o json | field avg_ts
}
quiet=$(decode "$@")
sh -c 'while :; do :; done' &
spinner=$!
trap 'kill $spinner' EXIT
busy=$(decode "$@")
awk -v a="$quiet" -v b="$busy" \
    'BEGIN { printf "%-28s %10.1f tokens/s   kept %.2f\n", "decode llama.cpp", a, b / a }'
