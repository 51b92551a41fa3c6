#!/bin/sh
# Programs outside the tree, built against an installed copy as a stranger would: with pkg-config and with CMake, shared
# and static. One trains and generates, one has its model in memory. The installed tree is moved before it is used.
# Usage: embed_test.sh BUILD_FOLDER SOURCE_FOLDER CC EMPTY_FOLDER
set -eu
build=$1
source=$2
cc=$3
scratch=$4
rm -rf "$scratch"
mkdir -p "$scratch/sources/text"
cd "$scratch"
fail() {
    echo "$1" >&2
    exit 1
}
quietly() { # its output only when it fails
    "$@" >log 2>&1 || {
        cat log >&2
        fail "failed: $*"
    }
}

# As a package is made: under another root; then in its place, which is not the one it was configured for.
DESTDIR=$scratch/root quietly cmake --install "$build" --prefix /opt/ember
mv root/opt/ember prefix
[ -x prefix/bin/ember ] || fail "no program"
installed=$(PKG_CONFIG_PATH= LD_LIBRARY_PATH= prefix/bin/ember --version | head -n 1)
pc=$(dirname "$(find prefix -name ember.pc)")
lib=$(dirname "$pc")
quietly "$source/tools/check_symbols.sh" shipped prefix/include "$lib/libember.so" "$lib/libember.a"
soname=$(readelf -d "$lib/libember.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
[ "$soname" = libember.so.0 ] || fail "the soname is $soname"
PKG_CONFIG_PATH=$scratch/$pc
export PKG_CONFIG_PATH
[ "ember $(pkg-config --modversion ember)" = "$installed" ] || fail "ember.pc and the program name unlike versions"
shared=$(pkg-config --cflags --libs ember)
static=$(pkg-config --cflags --libs --static ember)

# "Ten lines" is a promise about the interface.
lines=$(grep -cvE '^ *(//.*|#include.*|[{}])?$' "$source/examples/embed/train.c")
[ "$lines" -le 10 ] || fail "examples/embed/train.c has $lines lines"

cp "$source"/examples/embed/* sources
cp "$source"/docs/*.md "$source/README.md" sources/text
cd sources
strict="-std=c17 -Wall -Wextra -Werror -O1"
# shellcheck disable=SC2086 # several words on purpose
compile() { "$cc" $strict "$@" || fail "cannot be compiled: $*"; }

# shellcheck disable=SC2086
compile train.c $shared -o train
readelf -d train | grep -q "NEEDED.*libember.so.0" || fail "train is not linked with the shared library"
LD_LIBRARY_PATH=$scratch/$lib ./train >train.txt 2>train.log || {
    cat train.log >&2
    fail "train failed"
}
[ -s model/model.safetensors ] && [ -s model/report.html ] || fail "train left no model"
[ "$(wc -c <train.txt)" -gt 40 ] || fail "train continued its prompt with: $(cat train.txt)"

# shellcheck disable=SC2086
compile infer.c model.S -Wa,-I,model $shared -o infer-shared
# shellcheck disable=SC2086
compile -static infer.c model.S -Wa,-I,model $static -Wl,--gc-sections -o infer-static 2>static.log
# Whatever links: without the folder, without a library beside it, in a folder where nothing is.
mv model moved
mkdir empty
same() { # PROGRAM: says what train said
    (cd empty && "../$1") >said.txt || fail "$1 failed"
    cmp -s train.txt said.txt || fail "$1 said: $(cat said.txt); train said: $(cat train.txt)"
}
LD_LIBRARY_PATH=$scratch/$lib
export LD_LIBRARY_PATH
same infer-shared
unset LD_LIBRARY_PATH
same infer-static
readelf -d infer-static 2>/dev/null | grep -q NEEDED && fail "infer-static needs libraries"
[ -z "$(ls empty)" ] || fail "infer left a file"

for kind in shared static; do
    quietly cmake -S . -B "cmake-$kind" -DCMAKE_PREFIX_PATH="$scratch/prefix" -DCMAKE_C_COMPILER="$cc" -DKIND=$kind \
        -DMODEL="$PWD/moved" -DCMAKE_C_FLAGS="-Wall -Wextra -Werror"
    quietly cmake --build "cmake-$kind"
    same "cmake-$kind/infer"
    if readelf -d "cmake-$kind/infer" | grep -q "NEEDED.*libember"; then linked=shared; else linked=static; fi
    [ $linked = $kind ] || fail "cmake made a $linked program where $kind was asked for"
done

# A plug-in is built against the installed headers alone; the installed program loads it, and so does a program that
# links the shared library, or all of the static one.
cp -R "$source/examples/plugin" plugin
quietly cmake -S plugin -B cmake-plugin -DCMAKE_PREFIX_PATH="$scratch/prefix" -DCMAKE_C_COMPILER="$cc" \
    -DCMAKE_C_FLAGS="-Wall -Wextra -Werror"
quietly cmake --build cmake-plugin
readelf -d cmake-plugin/example.so | grep -q "NEEDED.*libember" && fail "the plug-in is linked with a library of its own"
(unset LD_LIBRARY_PATH && "$scratch/prefix/bin/ember" registry cosine_topk --plugin cmake-plugin/example.so) >said.txt ||
    fail "the installed program does not load a plug-in"
grep -q "of the plug-in example 1.0" said.txt || fail "the installed program says: $(cat said.txt)"
# shellcheck disable=SC2086
compile "$source/tests/api/plugins/host.c" $shared -o host-shared
# shellcheck disable=SC2086
compile "$source/tests/api/plugins/host.c" -Wl,--whole-archive $static -Wl,--no-whole-archive -rdynamic -o host-static
for kind in shared static; do
    LD_LIBRARY_PATH=$scratch/$lib "./host-$kind" cmake-plugin/example.so plugin/recipe.json >"said-$kind.txt" ||
        fail "a program with the $kind library does not load a plug-in"
    grep -q "of them active for a token" "said-$kind.txt" || fail "host-$kind said: $(cat "said-$kind.txt")"
done

strip -o stripped infer-static
echo "infer, static, stripped: $(wc -c <stripped) bytes with its model of $(cat moved/model.safetensors moved/tokenizer.json | wc -c)"
