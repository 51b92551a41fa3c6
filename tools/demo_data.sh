#!/bin/sh
# Collects the demo's four domains of real text from Debian packages into a folder, one file a domain:
#   prose.txt  the Jargon File 4.4.7 (jargon-text), English prose, public domain
#   bible.txt  the King James Version, a verse a line (bible-kjv, bible-kjv-text), public domain
#   c.txt      the C headers of libc6-dev and linux-libc-dev, in the order of their paths
#   dna.txt    the genome of Escherichia coli 536, NC_008253 (bowtie-examples)
# Of the genome the FASTA header goes and the lines of 70 letters stay: a header of English words is not
# DNA, and lines bound what a tokenizer takes for one word, which would else be five million letters long.
#
# Usage: tools/demo_data.sh [FOLDER]    default: build/demo/data
# A package that is not installed, or whose files the system's dpkg leaves out (as slim container images
# do with /usr/share/doc), is downloaded and unpacked beside the folder; nothing is installed.
set -eu
LC_ALL=C
export LC_ALL

out=${1:-build/demo/data}
unpacked=$(dirname "$out")/packages

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s\n' "demo data: $*" >&2
    exit 1
}

# find PACKAGE PATH: sets `found` to the file, installed or from the unpacked package.
find_file() {
    found=$2
    [ ! -s "$found" ] || return 0
    found=$unpacked/$1$2
    [ ! -s "$found" ] || return 0
    unpack "$1"
    [ -s "$found" ] || fail "the package $1 has no file $2"
}

unpack() {
    mkdir -p "$unpacked"
    say "  downloading the package $1"
    (
        cd "$unpacked" || exit 1
        rm -f "$1"_*.deb
        apt-get -q=2 download "$1" >download.log 2>&1 &&
            rm -rf "$1.new" && dpkg-deb -x "$1"_*.deb "$1.new" && rm -rf "$1" && mv "$1.new" "$1"
    ) || fail "cannot get the package $1: try  apt-get update && apt-get install $1
$(tail -n 1 "$unpacked/download.log" 2>/dev/null || true)"
}

# The headers of a package, one a line: its path under / (to sort by), a tab, where it is.
headers_of() {
    if dpkg -s "$1" >/dev/null 2>&1; then
        dpkg -L "$1"
    else
        [ -d "$unpacked/$1" ] || unpack "$1" >&2
        find "$unpacked/$1" -type f
    fi | awk '/\/usr\/include\/.*\.h$/ { print substr($0, index($0, "/usr/include/")) "\t" $0 }'
}

# finish NAME LEAST: moves NAME.new in place where it has at least LEAST bytes.
finish() {
    size=$(wc -c <"$out/$1.new")
    [ "$size" -ge "$2" ] || fail "$1 has only $size bytes, expected at least $2"
    mv "$out/$1.new" "$out/$1"
    say "$(printf '  %-10s %8d bytes  %s' "$1" "$size" "$3")"
}

mkdir -p "$out"
say "Collecting text from Debian packages into $out:"

find_file jargon-text /usr/share/doc/jargon-text/jargon.txt.gz
gzip -dc "$found" >"$out/prose.txt.new"
finish prose.txt 1000000 "English prose: the Jargon File (jargon-text)"

find_file bible-kjv /usr/bin/bible
bible=$found
find_file bible-kjv-text /usr/lib/bible.data
# -f: one verse a line behind its place, whatever the terminal's width.
"$bible" -p "$(dirname "$found")" -f 'Genesis1:1-Revelation22:21' </dev/null >"$out/bible.txt.new"
finish bible.txt 4000000 "archaic prose: the King James Bible (bible-kjv-text)"

headers_of libc6-dev >"$out/c.list"
headers_of linux-libc-dev >>"$out/c.list"
sort -u "$out/c.list" | cut -f 2 | while IFS= read -r header; do
    [ ! -f "$header" ] || cat "$header"
done >"$out/c.txt.new"
rm -f "$out/c.list"
finish c.txt 3000000 "C headers (libc6-dev, linux-libc-dev)"

find_file bowtie-examples /usr/share/doc/bowtie/examples/genomes/NC_008253.fna.gz
gzip -dc "$found" | grep -v '^>' >"$out/dna.txt.new"
finish dna.txt 4900000 "DNA: the genome of Escherichia coli (bowtie-examples)"
