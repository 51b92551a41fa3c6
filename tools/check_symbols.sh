#!/bin/sh
# What the library defines for others begins with ember_; what its rooms share begins with em_ and is hidden, so that
# it cannot clash with names of a program that uses a shared libember.
# Usage: tools/check_symbols.sh LIBRARY
set -eu
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
