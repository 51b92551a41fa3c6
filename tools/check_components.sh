#!/bin/sh
# docs/components.md is what the program makes of the option tables now.
# Usage: tools/check_components.sh EMBER FILE
set -eu
"$1" registry --markdown | diff -u "$2" - || {
    echo "$2 is not current: \`make docs\` makes it anew" >&2
    exit 1
}
