#!/bin/sh
# The Debian packages: made, looked at as lintian would, unpacked beside the system, and used: the program trains and
# generates, and a program is compiled and run with the library.
# Usage: deb_test.sh SOURCE_FOLDER BUILD_FOLDER
set -eu
source=$1 build=$2
export LC_ALL=C
for tool in dpkg-deb dpkg-shlibdeps; do
    command -v $tool >/dev/null || {
        echo "$tool is not here"
        exit 77
    }
done
scratch=$build/scratch/deb
rm -rf "$scratch"
mkdir -p "$scratch/root"
fail() {
    echo "$*" >&2
    exit 1
}

"$source/tools/deb.sh" "$build" "$scratch/out" >"$scratch/made"
[ "$(wc -l <"$scratch/made")" = 3 ] || fail "not three packages: $(cat "$scratch/made")"
while read -r deb; do
    name=$(dpkg-deb -f "$deb" Package)
    # Files of root, none writable for others, none outside of /usr.
    dpkg-deb -c "$deb" >"$scratch/list"
    awk '$2 != "root/root" || $1 !~ /^l/ && $1 ~ /^(.....w|........w)/ { print; bad = 1 }
         $6 !~ /^\.\/(usr\/.*)?$/ { print; bad = 1 } END { exit bad }' "$scratch/list" || fail "$name: see above"
    for file in copyright changelog.gz; do
        grep -q " ./usr/share/doc/$name/$file\$" "$scratch/list" || fail "$name has no $file"
    done
    for field in Version Architecture Maintainer Installed-Size Depends Section Priority Description; do
        [ -n "$(dpkg-deb -f "$deb" "$field")" ] || fail "$name has no $field"
    done
    dpkg-deb --ctrl-tarfile "$deb" | tar -tf - | grep -q md5sums || fail "$name has no md5sums"
    dpkg -x "$deb" "$scratch/root"
    dpkg-deb --ctrl-tarfile "$deb" | tar -xOf - ./md5sums | (cd "$scratch/root" && md5sum --quiet -c -)
done <"$scratch/made"
program=$(grep /ember_ "$scratch/made")
dpkg-deb -f "$program" Depends | grep -q 'libc6 (>= .*libjansson4' || fail "the program's Depends lack what it is linked with"
! dpkg-deb -f "$program" Depends | grep -q libember || fail "the program needs its library"
if command -v lintian >/dev/null; then
    xargs lintian --fail-on error <"$scratch/made"
fi

# The same build makes the same bytes.
"$source/tools/deb.sh" "$build" "$scratch/again" >/dev/null
for deb in "$scratch"/out/*.deb; do
    cmp "$deb" "$scratch/again/$(basename "$deb")"
done

root=$scratch/root/usr
for page in "$root"/share/man/man1/*.1.gz; do
    gzip -t "$page"
done
[ "$(ls "$root"/share/man/man1 | wc -l)" -gt 10 ] || fail "man pages are missing"
bash -n "$root/share/bash-completion/completions/ember"
[ -s "$root/share/zsh/vendor-completions/_ember" ] || fail "no completion for zsh"
[ -s "$root/share/fish/vendor_completions.d/ember.fish" ] || fail "no completion for fish"

# Used without the source and the build.
cd "$scratch"
PATH=$root/bin:$PATH
ember --version | grep -q '^ember [0-9]'
yes 'It was a dark and stormy night; the rain fell in torrents.' | head -c 60000 >text.txt
ember train --preset tiny-moe --data text.txt --out model --quiet --set train.steps=2 --set train.batch=2 --set train.seq=32 \
    --set train.final_eval_tokens=256 >trained
ember generate model -p 'It was' -n 4 --seed 1 --quiet >said
grep -q . said
cat >host.c <<'END'
#include <ember/ember.h>
#include <stdio.h>
int main(void) { return printf("%s\n", ember_version()) < 0 || ember_start() != EMBER_OK; }
END
flags=$(PKG_CONFIG_PATH=$(echo "$root"/lib*/pkgconfig) pkg-config --cflags --libs ember)
# shellcheck disable=SC2086 # several words on purpose
cc host.c -o host $flags
LD_LIBRARY_PATH=$(echo "$root"/lib*) ./host | grep -q '^[0-9]'
echo "made, unpacked and used: $(cat made)"
