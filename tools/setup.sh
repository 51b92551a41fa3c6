#!/bin/sh
# Installs the Debian packages that a task needs and this machine lacks, and says which and why. Asks nothing: as root
# or with sudo -n it installs, otherwise it prints the line to run and fails. With everything in place it runs nothing.
# Usage: tools/setup.sh build|test|deb|demo|ci...   (each is only itself: "build test" for the tests)
set -eu

# task package why
list='
build cmake configures the build
build ninja-build builds, on all cores
build pkg-config finds the libraries
build libjansson-dev JSON: configs, tokenizers, recipes
build libxxhash-dev hashes of saved states and caches
build zlib1g-dev reads .gz data
build libzstd-dev reads .zst data
build liblzma-dev what xz makes of the same bytes, for comparison
test libcmocka-dev the framework of the tests
test xz-utils what xz makes of the same bytes, for comparison
deb dpkg-dev finds the packages that a program depends on
demo jargon-text data: English prose
demo bible-kjv data: archaic prose, the program that unpacks it
demo bible-kjv-text data: archaic prose
demo libc6-dev data: C headers
demo linux-libc-dev data: C headers
demo bowtie-examples data: DNA, a genome
demo xz-utils unpacks and compresses data
ci gcc-aarch64-linux-gnu compiles for aarch64
ci libc6-dev-arm64-cross the C library for aarch64
ci qemu-user runs aarch64 programs
ci clang compiles the fuzz targets
ci libclang-rt-dev libFuzzer and the sanitizers of clang
'

for task in "$@"; do
    case $task in
    build | test | deb | demo | ci) ;;
    *)
        echo "tools/setup.sh: expected build, test, deb, demo or ci, found $task" >&2
        exit 2
        ;;
    esac
done

# The lines of $list for the tasks, without those that are installed.
missing=$(
    echo "$list" | while read -r task package why; do
        [ -n "$task" ] || continue
        case " $* " in *" $task "*) ;; *) continue ;; esac
        if command -v dpkg-query >/dev/null &&
            [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ]; then
            continue
        fi
        printf '  %-22s %s\n' "$package" "$why"
    done | awk '!seen[$1]++'
)
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "This is no Debian system, so nothing is installed. What is needed, by Debian's names:"
    echo "$missing"
    exit 0 # it may be here under other names: the build will tell
fi

packages=$(echo "$missing" | awk '{print $1}' | tr '\n' ' ')
packages=${packages% }
echo "Missing Debian packages:"
echo "$missing"
if [ "$(id -u)" = 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root='sudo -n'
else
    echo "Not root, and sudo would ask for a password. To install them:" >&2
    echo "sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends $packages'" >&2
    exit 1
fi
echo "Installing them: apt-get install --no-install-recommends $packages"
log=build/setup.log
mkdir -p build
# shellcheck disable=SC2086 # several words on purpose
if ! {
    $as_root apt-get -o DPkg::Lock::Timeout=300 update &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y \
            --no-install-recommends $packages
} >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "tools/setup.sh: apt-get failed; all of its output is in $log" >&2
    exit 1
fi
