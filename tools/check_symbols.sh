#!/bin/sh
# What the library defines for others begins with ember_ and stands in the headers; what its rooms share begins with em_
# and stays inside, so that it cannot clash with names of the program that uses it.
# Usage: tools/check_symbols.sh rooms ARCHIVE                       as the tests have it: em_ names are there, and hidden
#        tools/check_symbols.sh shipped INCLUDE_FOLDER LIBRARY...   libember.a, libember.so: exactly what is declared
set -eu
export LC_ALL=C
mode=$1
shift

if [ "$mode" = rooms ]; then
    readelf -sW "$1" | awk '
    $5 == "GLOBAL" && $7 != "UND" && $8 != "" {
        seen++
        if ($6 == "DEFAULT" && $8 !~ /^ember_/) {
            print $8 ": visible, and does not begin with ember_"
            bad = 1
        } else if ($8 !~ /^(ember|em)_/) {
            print $8 ": shared between files, and does not begin with em_"
            bad = 1
        }
    }
    END {
        if (!seen) {
            print "no symbols"
            bad = 1
        }
        exit bad
    }'
    exit
fi

# The names of EMBER_API declarations: what stands before the first parenthesis.
declared() {
    cat "$1"/ember/*.h | sed -e 's,//.*,,' -e '/^ *#/d' | tr '\n' ' ' | sed 's,/\*[^*]*\*\+\([^/*][^*]*\*\+\)*/, ,g' | tr ';{}' '\n\n\n' |
        sed -n 's/.*EMBER_API[^(]*[ *]\(ember_[a-z0-9_]*\)(.*/\1/p' | sort
}

# Weak and common names count too; the name of a symbol version is none.
defined() {
    case $1 in
    *.so*) nm -D --defined-only "$1" ;;
    *) nm -g --defined-only "$1" ;;
    esac | awk 'NF == 3 && !($2 == "A" && $3 ~ /^EMBER_[0-9]+$/) { sub(/@.*/, "", $3); print $3 }' | sort
}

include=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
declared "$include" >"$work/declared"
[ -s "$work/declared" ] || { echo "$include: no declarations" >&2; exit 1; }
bad=0
for library; do
    defined "$library" >"$work/defined"
    comm -13 "$work/declared" "$work/defined" | sed "s|.*|$library: & is visible, and no header declares it|" >"$work/extra"
    comm -23 "$work/declared" "$work/defined" | sed "s|.*|$library: & is declared, and not there|" >>"$work/extra"
    if [ -s "$work/extra" ]; then
        cat "$work/extra"
        bad=1
    else
        echo "$library: $(wc -l <"$work/defined") names, all declared"
    fi
done
exit $bad
