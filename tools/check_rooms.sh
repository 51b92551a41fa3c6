#!/bin/sh
# Who may include whom (docs/architecture.md): a room of src/ only rooms above it in the list, public headers no
# room at all, the program and the examples only what any user's program may.
# Usage: tools/check_rooms.sh [ROOT]; prints each include that breaks a rule, exit status 1 if there is one.
set -eu
root=${1:-$(dirname "$0")/..}
cd "$root"

# shellcheck disable=SC2016 # awk expands its own
find src include cli examples -type f \( -name '*.c' -o -name '*.h' -o -name '*.def' \) 2>/dev/null |
    LC_ALL=C sort | tr '\n' '\0' | xargs -0 awk '
BEGIN {
    n = split("base registry kernels tensor distributed ops formats text nn models data report " \
              "train infer bench server api", rooms, " ")
    for (i = 1; i <= n; i++) place[rooms[i]] = i
}
function broken(why) {
    printf "%s:%d: %s: %s\n", FILENAME, FNR, $0, why
    bad = 1
}
FNR == 1 {
    files++
    split(FILENAME, path, "/")
    area = path[1]
    room = path[2]
    folder = FILENAME
    sub(/[^\/]*$/, "", folder)
    if (area == "src" && !(room in place)) {
        printf "%s: src/%s is not in the list of rooms\n", FILENAME, room
        bad = 1
    }
}
/^[ \t]*#[ \t]*include[ \t]/ {
    if (!match($0, /["<][^">]+[">]/)) {
        broken("an include that cannot be read")
        next
    }
    quoted = substr($0, RSTART, 1) == "\""
    name = substr($0, RSTART + 1, RLENGTH - 2)
    first = name
    sub(/\/.*/, "", first)
    if (name ~ /(^|\/)\.\.?\//) broken("a relative path")
    else if (!quoted && first in place && name ~ /\//) broken("a room in <>")
    else if (first == "ember" && quoted) broken("public headers stand in <>")
    else if (area == "src" && quoted && name !~ /\//) broken("the path is to begin with a room")
    else if (area == "src" && quoted && !(first in place)) broken("no such room")
    else if (area == "src" && quoted && place[first] > place[room]) broken("a room below " room)
    else if (area == "src" && quoted && room == "infer" && first == "train") broken("infer does not know train")
    else if (area == "include" && quoted) broken("public headers include <ember/...> and system headers only")
    else if ((area == "cli" || area == "examples") && quoted && (getline line < (folder name)) < 0)
        broken(area " includes <ember/...>, system headers and its own files only")
}
END {
    if (files == 0) {
        print "no source files here"
        bad = 1
    }
    exit bad
}'
