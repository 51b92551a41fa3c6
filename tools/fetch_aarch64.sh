#!/bin/sh
# Unpacks the arm64 libraries that the aarch64 build links against into FOLDER, from the machine's own Debian mirror
# but with an apt of its own: no foreign architecture is added to the system, and no root is needed.
# Usage: tools/fetch_aarch64.sh FOLDER
set -eu
folder=$1
packages='libjansson-dev libjansson4 libxxhash-dev libxxhash0 zlib1g-dev zlib1g libzstd-dev libzstd1
liblzma-dev liblzma5 libcmocka-dev libcmocka0'
[ ! -e "$folder/complete" ] || exit 0

rm -rf "$folder"
mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial" "$folder/packages"
folder=$(cd "$folder" && pwd)
log=$folder/apt.log
fetch() {
    apt-get -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State="$folder/apt" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$folder/apt/cache" -o APT::Sandbox::User="$(id -un)" "$@" \
        >>"$log" 2>&1 </dev/null
}
# Other vendors' sources may lack arm64; what matters is whether the packages are found.
fetch update || echo "warning: apt-get update had failures, see $log" >&2
cd "$folder/packages"
# shellcheck disable=SC2086 # several words on purpose
if ! fetch download $packages; then
    tail -n 5 "$log" >&2
    echo "tools/fetch_aarch64.sh: cannot download the arm64 libraries; see $log" >&2
    exit 1
fi
for package in *.deb; do
    dpkg -x "$package" "$folder/root"
done
rm -rf "$folder/packages" "$folder/apt"
# One folder of libraries, as on a merged system.
if [ -d "$folder/root/lib" ]; then
    cp -a "$folder/root/lib/." "$folder/root/usr/lib/"
    rm -rf "$folder/root/lib"
    ln -s usr/lib "$folder/root/lib"
fi
# Absolute links would point into this machine's own folders.
find "$folder/root" -type l | while read -r link; do
    target=$(readlink "$link")
    case $target in
    /*) ln -sf "$folder/root$target" "$link" ;;
    esac
done
# zstd's names the folder without the architecture, which only a native linker searches.
sed -i 's|^\(libdir=.*/lib\)$|\1/aarch64-linux-gnu|' "$folder"/root/usr/lib/aarch64-linux-gnu/pkgconfig/*.pc
: >"$folder/complete"
