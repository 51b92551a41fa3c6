#!/bin/sh
# A build without training runs what a whole build has trained, gives the same, says what it lacks, and is small.
# Usage: inference_test.sh INFERENCE_BUILD WHOLE_BUILD SOURCE_FOLDER CC EMPTY_FOLDER
set -eu
limit=2750000 # bytes of a program that is linked with everything it needs, stripped, without its model
fail() {
    echo "$1" >&2
    exit 1
}
inference=$(cd "$1" && pwd)
whole=$(cd "$2" && pwd)
source=$(cd "$3" && pwd)
cc=$4
rm -rf "$5"
mkdir -p "$5/text"
cd "$5"

cp "$source"/docs/*.md text
cp "$source"/examples/embed/* .
"$whole/ember" train recipe.json --set train.steps=4 --set train.final_eval_tokens=100 --out model --quiet >/dev/null
for options in "--temperature 0" "--seed 5" "--seed 5 --backend reference"; do
    # shellcheck disable=SC2086 # several words on purpose
    "$whole/ember" generate model -p "Some text" -n 40 --dtype f32 $options 2>/dev/null >expected
    # shellcheck disable=SC2086
    "$inference/ember" generate model -p "Some text" -n 40 --dtype f32 $options 2>/dev/null >found
    cmp -s expected found || fail "$options: unlike the whole build: $(cat found)"
done

refused() { # ARGUMENT...
    status=0
    "$inference/ember" "$@" >said 2>&1 || status=$?
    [ $status = 1 ] || fail "ember $*: exit status $status: $(cat said)"
    grep -q "this build has no training" said || fail "ember $*: $(cat said)"
    [ "$(wc -l <said)" = 1 ] || fail "ember $*: more than a line: $(cat said)"
}
refused train recipe.json --out other
refused eval model --data text/notation.md
refused plan model
refused bench gemm --m 8 --n 8 --k 8
refused tokenizer train --data text --out other
[ ! -e other ] || fail "a refused command left a folder"

cmake --install "$inference" --prefix "$PWD/prefix" >/dev/null
lib=$(dirname "$(dirname "$(find prefix -name ember.pc)")")
"$source/tools/check_symbols.sh" shipped prefix/include "$lib/libember.so" "$lib/libember.a"
if nm "$lib/libember.a" | grep -q '_backward_[a-z0-9_]*__'; then fail "libember.a has kernels of backward passes"; fi
PKG_CONFIG_PATH=$PWD/$lib/pkgconfig
export PKG_CONFIG_PATH
link() { # PROGRAM OPTION...
    out=$1
    shift
    # shellcheck disable=SC2046 # several words on purpose
    "$cc" -std=c17 -O2 infer.c model.S -Wa,-I,model $(pkg-config --cflags ember) "$@" -Wl,--gc-sections -o "$out" 2>log ||
        { cat log; fail "$out cannot be linked"; }
    strip "$out"
    "./$out" >said || fail "$out failed"
    bytes=$(($(wc -c <"$out") - $(cat model/config.json model/model.safetensors model/tokenizer.json \
        model/tokenizer_config.json model/generation_config.json | wc -c)))
    printf '%-56s %9d bytes\n' "$out, stripped, without its model" "$bytes"
}
# shellcheck disable=SC2046
link alone -static $(pkg-config --libs --static ember)
[ "$bytes" -lt $limit ] || fail "$bytes bytes: at most $limit are promised"
# shellcheck disable=SC2046
link with-system-libraries "$lib/libember.a" $(pkg-config --libs --static ember | sed 's/-lember//')
printf '%-56s %9d bytes\n' libember.a "$(wc -c <"$lib/libember.a")" libember.so "$(wc -c <"$lib/libember.so")"
