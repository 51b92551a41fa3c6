#!/bin/sh
# Each public header compiles alone, as C17 and (when a C++ compiler is given) as C++17, without a warning.
# Usage: tools/check_headers.sh INCLUDE_FOLDER CC [CXX]
set -eu
include=$1
cc=$2
cxx=${3:-}
warnings="-Wall -Wextra -Wpedantic -Wshadow -Wundef -Wcast-qual -Werror"
count=0
bad=0
for header in "$include"/ember/*.h; do
    [ -e "$header" ] || { echo "no headers in $include/ember" >&2; exit 1; }
    name=ember/${header##*/}
    # Twice: the second time its guard has to hold.
    text=$(printf '#include <%s>\n#include <%s>\n' "$name" "$name")
    # shellcheck disable=SC2086 # the warnings are several words
    echo "$text" | "$cc" -std=c17 $warnings -Wstrict-prototypes -I"$include" -fsyntax-only -x c - ||
        { echo "$name: not alone as C17" >&2; bad=1; }
    # shellcheck disable=SC2086
    [ -z "$cxx" ] || echo "$text" | "$cxx" -std=c++17 $warnings -I"$include" -fsyntax-only -x c++ - ||
        { echo "$name: not alone as C++17" >&2; bad=1; }
    # What an object's docstring has to say: which threads may use it.
    awk -v name="$name" '
    { text[NR] = $0 }
    /^typedef struct ember_[a-z_]+ ember_[a-z_]+;/ {
        found = /thread/
        for (i = NR - 1; i > 0 && text[i] ~ /^ \*|^\/\*\*/; i--) found = found || text[i] ~ /[Tt]hread/
        if (!found) {
            sub(/;.*/, "", $3)
            print name ": " $3 ": no word on threads"
            bad = 1
        }
    }
    END { exit bad }' "$header" >&2 || bad=1
    count=$((count + 1))
done
echo "$count headers${cxx:+, as C++ too}"
exit $bad
