#!/bin/sh
# Debian packages of a release build, from what `make install` would install:
#   ember         the program, its man pages and completion; it carries its own libember, so that it needs no other package
#   libember0     the shared library, for programs of others: the number is the ABI's, and two may be installed
#   libember-dev  headers, the static library, and the files by which pkg-config and CMake find them
# Usage: tools/deb.sh BUILD_FOLDER OUT_FOLDER   (DEBFULLNAME and DEBEMAIL name the maintainer)
set -eu
build=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."
export LC_ALL=C
umask 022

version=$("$build/ember" --version | sed -n '1s/^ember //p')
architecture=$(dpkg --print-architecture)
maintainer="${DEBFULLNAME:-Ember maintainers} <${DEBEMAIL:-ember@localhost}>"
# The same sources make the same packages.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date -r CHANGELOG.md +%s)}
export SOURCE_DATE_EPOCH

work=$out/work
rm -rf "$work" "$out"/*.deb
mkdir -p "$work/all" "$work/shlibs/debian"
DESTDIR=$work/all cmake --install "$build" --prefix /usr --strip >"$work/install.log"

# What goes where; what is left over at the end is in no package, and an error.
take() { # PACKAGE PATH...
    package=$1
    shift
    for path; do
        mkdir -p "$work/$package/$(dirname "$path")"
        mv "$work/all/$path" "$work/$package/$path"
    done
}
cd "$work/all"
abi=$(readelf -d usr/lib*/libember.so | sed -n 's/.*SONAME.*\[libember\.so\.\([0-9]*\)\]/\1/p')
library=libember$abi
take ember usr/bin/ember usr/share/man usr/share/bash-completion usr/share/fish
mkdir -p "$work/ember/usr/share/zsh/vendor-completions" # where Debian's zsh looks
mv usr/share/zsh/site-functions/_ember "$work/ember/usr/share/zsh/vendor-completions/"
take "$library" usr/lib*/libember.so.*
take libember-dev usr/include usr/lib*/libember.so usr/lib*/libember.a usr/lib*/pkgconfig usr/lib*/cmake
cp "$OLDPWD/README.md" "$OLDPWD/CHANGELOG.md" "$work/"
rm -f usr/share/doc/ember/LICENSE usr/share/doc/ember/README.md
cd "$work"
left=$(find all ! -type d)
if [ -n "$left" ]; then
    echo "tools/deb.sh: installed, but in no package: $left" >&2
    exit 1
fi
strip --strip-unneeded "$library"/usr/lib*/libember.so.*
strip --strip-debug libember-dev/usr/lib*/libember.a
find ember/usr/share/man -name '*.1' -exec gzip -9n {} +
mkdir -p ember/usr/share/doc/ember
gzip -9nc README.md >ember/usr/share/doc/ember/README.md.gz

# Debian's form of the changes: the first version's lines.
{
    echo "ember ($version) unstable; urgency=medium"
    echo
    awk '/^## / { if (n++) exit } n && /^- / { sub(/^- /, ""); print }' CHANGELOG.md | while read -r line; do
        printf '%s\n' "$line" | fold -s -w 74 | sed -e 's/ *$//' -e '1s/^/  * /' -e '2,$s/^/    /'
    done
    echo
    echo " -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} >changelog

needs() { # FILE: the packages that it is linked with
    printf 'Source: ember\n\nPackage: ember\nArchitecture: any\n' >shlibs/debian/control
    (cd shlibs && dpkg-shlibdeps -O "$1" 2>../shlibdeps.log) | sed -n 's/^shlibs:Depends=//p'
}

make_package() { # PACKAGE SECTION DEPENDS SUMMARY; the description comes from stdin
    package=$1 folder=$work/$1
    mkdir -p "$folder/DEBIAN" "$folder/usr/share/doc/$package"
    gzip -9nc changelog >"$folder/usr/share/doc/$package/changelog.gz"
    cat >"$folder/usr/share/doc/$package/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: ember

Files: *
Copyright: the Ember authors
License: Apache-2.0

License: Apache-2.0
 On Debian systems the text of this licence is in
 /usr/share/common-licenses/Apache-2.0.
END
    {
        echo "Package: $package"
        echo "Source: ember"
        echo "Version: $version"
        echo "Architecture: $architecture"
        echo "Maintainer: $maintainer"
        echo "Installed-Size: $(du -sk --exclude=DEBIAN "$folder" | cut -f1)"
        [ -z "$3" ] || echo "Depends: $3"
        echo "Section: $2"
        echo "Priority: optional"
        echo "Description: $4"
        sed 's/^/ /'
    } >"$folder/DEBIAN/control"
    (cd "$folder" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    chmod -R u=rwX,go=rX "$folder"
    find "$folder" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group --build "$folder" "$out/${package}_${version}_$architecture.deb" >/dev/null
    echo "$out/${package}_${version}_$architecture.deb"
}

make_package ember science "$(needs "$work/ember/usr/bin/ember")" \
    "train and run liquid, hybrid, Mixture-of-Experts language models" <<'END'
Ember trains, evaluates, inspects and runs sequence models whose blocks are
put together from short convolutions, attention and mixtures of experts, on
the processor that there is. Models are Hugging Face folders. It needs no
Python and opens no connection.
END

mkdir -p "$library/DEBIAN"
echo "libember $abi $library (>= $version)" >"$library/DEBIAN/shlibs"
echo "activate-noawait ldconfig" >"$library/DEBIAN/triggers"
make_package "$library" libs "$(needs "$(find "$work/$library/usr" -name 'libember.so.*' -type f)")" \
    "train and run hybrid language models (shared library)" <<'END'
The library behind the program ember, for programs that train or run models
themselves.
END

make_package libember-dev libdevel \
    "$library (= $version), libjansson-dev, libxxhash-dev, zlib1g-dev, libzstd-dev, liblzma-dev" \
    "train and run hybrid language models (development files)" <<'END'
Headers, the static library, and the files by which pkg-config and CMake find
libember.
END
rm -rf "$work"
