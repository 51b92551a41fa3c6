#!/bin/sh
# tools/setup.sh installs what is missing and nothing else, with the system's commands played by scripts.
# Usage: setup_test.sh SCRIPT EMPTY_FOLDER
set -eu
script=$1
scratch=$2
rm -rf "$scratch"
mkdir -p "$scratch/bin" "$scratch/run"
cd "$scratch/run"
play() { # NAME BODY
    printf '#!/bin/sh\n%s\n' "$2" >"$scratch/bin/$1"
    chmod +x "$scratch/bin/$1"
}
fail() {
    echo "$1" >&2
    cat "$scratch/out" >&2
    exit 1
}
setup() { # STATUS ARGUMENTS...
    expected=$1
    shift
    : >"$scratch/calls"
    got=0
    PATH=$scratch/bin:$PATH "$script" "$@" >"$scratch/out" 2>&1 || got=$?
    [ "$got" = "$expected" ] || fail "setup $*: status $got, expected $expected"
}
called() { # PATTERN
    grep -q -- "$1" "$scratch/calls" || fail "no call like: $1"
}
not_called() {
    ! grep -q -- "$1" "$scratch/calls" || fail "called: $1"
}

play apt-get "echo \"apt-get \$*\" >>'$scratch/calls'"
play sudo 'exit 1'
play id 'echo 0'

play dpkg-query 'echo installed'
setup 0 build test demo ci
[ ! -s "$scratch/calls" ] || fail "ran something though everything is there"
[ ! -s "$scratch/out" ] || fail "talked though everything is there"

# One that is missing, one of which only the configuration is left.
play dpkg-query 'case "$*" in *cmake*) echo installed ;; *ninja*) exit 1 ;; *cmocka*) echo config-files ;; *) echo installed ;; esac'
setup 0 build test
called 'apt-get .*update'
called 'install -y --no-install-recommends ninja-build libcmocka-dev$'
grep -q 'ninja-build *builds' "$scratch/out" || fail "does not say why"
setup 0 build # the tests' packages are not the build's
called 'recommends ninja-build$'

play id 'echo 1000'
setup 1 build
not_called .
grep -q "^sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends ninja-build'" "$scratch/out" ||
    fail "does not print the line to run"
play sudo "[ \"\$1\" = -n ] && shift; echo \"sudo \$*\" >>'$scratch/calls'; exec \"\$@\""
setup 0 build
called 'sudo apt-get .*update'
called 'sudo env DEBIAN_FRONTEND=noninteractive apt-get .*install -y .* ninja-build$'

play apt-get 'echo "E: no network" >&2; exit 100'
setup 1 build
grep -q 'no network' "$scratch/out" || fail "hides why apt-get failed"
setup 2 everything
