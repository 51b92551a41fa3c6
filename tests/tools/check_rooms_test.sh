#!/bin/sh
# tools/check_rooms.sh accepts a good tree and finds each of these.
# Usage: check_rooms_test.sh SCRIPT EMPTY_FOLDER
set -eu
script=$1
scratch=$2
rm -rf "$scratch"
mkdir -p "$scratch/src/base" "$scratch/src/nn/moe" "$scratch/src/train" "$scratch/src/infer" "$scratch/include/ember" \
    "$scratch/cli"
fail() {
    echo "$1" >&2
    exit 1
}

good() {
    echo '#include <ember/status.h>' >"$scratch/include/ember/ember.h"
    printf '#include <stdio.h>\n#include "base/a.h"\n#include "nn/moe/m.h"\n' >"$scratch/src/nn/moe/m.c"
    echo '#include "base/a.h"' >"$scratch/src/base/a.c"
    echo '#include "nn/moe/m.h"' >"$scratch/src/train/t.c"
    echo '#include "nn/moe/m.h"' >"$scratch/src/infer/i.c"
    echo '#define USAGE 2' >"$scratch/cli/args.h"
    printf '#include <ember/ember.h>\n#include "args.h"\n' >"$scratch/cli/main.c"
}
refused() { # FILE LINE
    good
    echo "$2" >"$scratch/$1"
    if found=$("$script" "$scratch"); then fail "accepted: $1: $2"; fi
    case $found in
    "$1:1: "*) ;;
    *) fail "$1: $2: said instead: $found" ;;
    esac
}

if "$script" "$scratch" >/dev/null; then fail "accepted a tree without files"; fi
good
"$script" "$scratch" || fail "refused a good tree"
refused src/base/a.c '#include "nn/moe/m.h"'
refused src/base/a.c '  #  include "registry/x.h"'
refused src/train/t.c '#include "infer/i.h"'
refused src/infer/i.c '#include "train/t.h"'
refused src/nn/moe/m.c '#include "m.h"'
refused src/nn/moe/m.c '#include "../norm/n.h"'
refused src/nn/moe/m.c '#include "nn/moe/../x.h"'
refused src/nn/moe/m.c '#include "nowhere/x.h"'
refused src/base/a.c '#include <train/t.h>'
refused include/ember/ember.h '#include "base/a.h"'
refused include/ember/ember.h '#include <base/a.h>'
refused cli/main.c '#include "base/a.h"'
refused cli/main.c '#include <base/a.h>'
refused cli/main.c '#include "../src/base/a.h"'
refused cli/main.c '#include "absent.h"'
good
mkdir "$scratch/src/attic"
echo 'int x;' >"$scratch/src/attic/x.c"
if "$script" "$scratch" >/dev/null; then fail "accepted an unknown room"; fi
