#!/bin/sh
# The program shows plug-ins what the shared library shows its users: every public function, used by the program or not,
# and nothing else.
# Usage: tools/check_exports.sh PROGRAM SHARED_LIBRARY
set -eu
# Defined for others, without versions; copies of what the C library has are not ours.
names() {
    readelf --dyn-syms -W "$1" | awk '
        $5 == "GLOBAL" && $6 == "DEFAULT" && $7 != "UND" && $7 != "ABS" { sub(/@.*/, "", $8); print $8 }' |
        grep -v -x -e stdin -e stdout -e stderr -e environ -e __environ -e _environ | sort -u
}
program=$(names "$1")
library=$(names "$2")
[ -n "$library" ] || { echo "$2 shows no functions" >&2; exit 1; }
if [ "$program" != "$library" ]; then
    echo "only one of $1 and $2 has:" >&2
    printf '%s\n%s\n' "$program" "$library" | sort | uniq -u >&2
    exit 1
fi
printf '%s\n' "$library" | wc -l
