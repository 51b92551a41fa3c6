#!/bin/sh
# tools/check_symbols.sh accepts good libraries and finds each of these.
# Usage: check_symbols_test.sh SCRIPT CC EMPTY_FOLDER
set -eu
script=$1
cc=$2
scratch=$3
rm -rf "$scratch"
mkdir -p "$scratch/include/ember"
cd "$scratch"
fail() {
    echo "$1" >&2
    exit 1
}
build() { # SOURCE TEXT: x.so and x.a
    printf '%s\n' "$1" >x.c
    rm -f x.a
    "$cc" -fPIC -fvisibility=hidden -c x.c -o x.o
    "$cc" -shared x.o -o x.so
    ar qcs x.a x.o
}
refused() { # TEXT MODE ARGUMENT...
    said=$1
    shift
    if found=$("$script" "$@"); then fail "accepted: $said"; fi
    case $found in
    *"$said"*) ;;
    *) fail "expected \"$said\", found: $found" ;;
    esac
}

cat >include/ember/x.h <<'END'
/* EMBER_API int ember_in_a_comment(void); */
#define EMBER_API __attribute__((visibility("default")))
EMBER_API int ember_one(void); /**< a * in a comment */
EMBER_API EMBER_CHECKED const char *
ember_two(void (*f)(int), int n);
END
one='__attribute__((visibility("default"))) int ember_one(void) { return 1; }'
two='__attribute__((visibility("default"))) const char *ember_two(void (*f)(int), int n) { f(n); return 0; }'

build "$one $two"
"$script" shipped include x.so x.a >/dev/null || fail "refused good libraries"
"$script" rooms x.a || fail "refused good rooms"
build "$one"
refused "x.so: ember_two is declared, and not there" shipped include x.so
refused "x.a: ember_two is declared, and not there" shipped include x.a
build "$one $two __attribute__((visibility(\"default\"))) int ember_three;"
refused "x.so: ember_three is visible, and no header declares it" shipped include x.so
build "$one $two int em_inside(void) { return 0; }"
"$script" shipped include x.so >/dev/null || fail "refused a hidden name in a shared library"
"$script" rooms x.a || fail "refused a hidden name in rooms"
refused "x.a: em_inside is visible" shipped include x.a # an archive hides nothing
build "$one __attribute__((visibility(\"default\"))) int em_shown;"
refused "em_shown: visible" rooms x.a
build "$one int shared;"
refused "shared: shared between files" rooms x.a
rm include/ember/x.h
if "$script" shipped include x.a >/dev/null 2>&1; then fail "accepted a folder without headers"; fi
