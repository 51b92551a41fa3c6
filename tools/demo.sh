#!/bin/sh
# The demo: real text from Debian packages, four minutes of training, then what the model has learnt.
# `make demo` prepares the machine, builds build/release/ember and runs this.
#
# Usage: tools/demo.sh [MINUTES]    default: 4
# EMBER names the program (default build/release/ember), DEMO_DIR the folder (default build/demo). Data that
# is already there is used again; the model of an earlier demo is replaced.
set -eu

minutes=${1:-4}
ember=${EMBER:-build/release/ember}
dir=${DEMO_DIR:-build/demo}
tools=$(dirname "$0")
data=$dir/data
model=$dir/model

say() { printf '%s\n' "$*"; }
step() { printf '\n%s\n\n' "$*"; }
fail() {
    printf '%s\n' "demo: $*" >&2
    exit 1
}

[ -x "$ember" ] || fail "$ember: no such program; 'make demo' builds it"
case $minutes in
'' | *[!0-9.]*) fail "MINUTES is a number, not '$minutes'" ;;
esac

step "1/4  Text"
for domain in prose bible c dna; do
    if [ ! -s "$data/$domain.txt" ]; then
        sh "$tools/demo_data.sh" "$data"
        break
    fi
done
say "Four domains in $data: English prose, the King James Bible, C headers, and DNA."

step "2/4  Training for $minutes minutes: a tokenizer, then a model of short convolutions, attention and 8 experts a layer"
rm -rf "$model"
"$ember" train --preset tiny-moe --data "$data/prose.txt" "$data/bible.txt" "$data/c.txt" "$data/dna.txt" \
    --out "$model" --set "train.minutes=$minutes"

# The table: eval.json's figures, one object a domain in whatever layout, beside what xz makes of the same
# held-out bytes.
xz_sizes() {
    command -v xz >/dev/null 2>&1 || return 0
    for file in "$model"/logs/heldout/*; do
        [ ! -f "$file" ] || printf 'xz %s %s\n' "$(basename "$file")" "$(xz -9e -T1 -c "$file" | wc -c)"
    done
}

fields() {
    tr ',{}[]' '[\n*]' <"$model/logs/eval.json" |
        sed -n 's/^[[:space:]]*"\([a-z_]*\)"[[:space:]]*:[[:space:]]*"\{0,1\}\([^"]*\)"\{0,1\}[[:space:]]*$/\1 \2/p'
}

table() {
    { xz_sizes && fields; } | awk '
        function plain(s) { while (sub(/\.txt$/, "", s)); return s }
        function figure(s) { return s == "" || s == "null" ? "-" : sprintf("%.3f", s) }
        $1 == "xz" { xz[plain($2)] = $3; next }
        $1 == "domain" { name[++n] = plain($2) }
        $1 == "bytes" { bytes[n] = $2 }
        $1 == "bpb" { bpb[n] = $2 }
        $1 == "untrained_bpb" { untrained[n] = $2 }
        END {
            if (!n) exit 1
            printf "%-10s %14s %12s %10s %10s\n", "domain", "held-out bytes", "untrained", "xz -9e", "Ember"
            for (i = 1; i <= n; i++)
                printf "%-10s %14d %12s %10s %10s\n", name[i], bytes[i], figure(untrained[i]),
                    figure(bytes[i] > 0 && name[i] in xz ? 8 * xz[name[i]] / bytes[i] : ""), figure(bpb[i])
        }'
}

step "3/4  Bits per byte of text that the model has not seen (less is better)"
table || fail "$model/logs/eval.json has no domains"
say "
untrained is the same model before its first step. xz -9e compresses the same held-out bytes of a
domain on their own: a general compressor that has not seen the training text."

sample() {
    say "--- $1 ---"
    printf '%s' "$2"
    "$ember" generate "$model" -p "$2" -n 120 --temperature 0.7 --seed 1 --quiet
    say "
"
}

step "4/4  What it writes, one sample a domain (the prompt is the first line's beginning)"
sample prose "A hacker is a person who"
sample bible "And the LORD said unto"
sample c "#ifndef _LINUX_"
sample dna "AGCTTTTCATTCTGACTGCAACGGGCAATATG"

say "The report, with curves and expert maps, is one file for the browser:
    $model/report.html
The model is a folder, $model; it goes on from any prompt:
    $ember generate $model -p \"And it came to pass\"
Your own text, in files or folders:
    $ember train --preset tiny-moe --data FILE_OR_FOLDER... --out MY_MODEL"
