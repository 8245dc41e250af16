#!/usr/bin/env bash
# Makes the Debian package of one program, in target/dist:
#   packaging/deb.sh PROGRAM FOLDER
# FOLDER holds the manual, the completions and the documents. The package works on any system that has the program's C library.
set -euo pipefail
program=$(realpath "$1") files=$(realpath "$2")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source packaging/common.sh

case $(readelf -h "$program") in
*X86-64*) architecture=amd64 ;;
*AArch64*) architecture=arm64 ;;
*) fail "$program is for no architecture that there is a package for" ;;
esac
# The oldest C library that has all that the program asks for.
glibc=$(readelf -VW "$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)

root=$work/stage/deb-$architecture
rm -rf "$root"
doc=$root/usr/share/doc/voxtral
install -Dm755 "$program" "$root/usr/bin/voxtral"
strip --strip-unneeded "$root/usr/bin/voxtral" 2>/dev/null || true # of another architecture, it stays as it is
install -Dm644 -t "$root/usr/share/man/man1" "$files"/man/man1/*
install -Dm644 "$files/completions/voxtral.bash" "$root/usr/share/bash-completion/completions/voxtral"
install -Dm644 -t "$root/usr/share/zsh/vendor-completions" "$files/completions/_voxtral"
install -Dm644 -t "$root/usr/share/fish/vendor_completions.d" "$files/completions/voxtral.fish"
mkdir -p "$doc"
cp -r "$files"/{README.md,NOTICE,THIRD-PARTY.txt,docs,schemas} "$doc"
cp "$files/CHANGELOG.md" "$doc/NEWS.md"
cat >"$doc/changelog.Debian" <<CHANGELOG
voxtral ($version-1) stable; urgency=medium

  * What is new is in NEWS.md.gz.

 -- $maintainer  $(LC_ALL=C date -uRd "@$SOURCE_DATE_EPOCH")
CHANGELOG
gzip -9n "$root"/usr/share/man/man1/* "$doc"/{changelog.Debian,NEWS.md,THIRD-PARTY.txt}
cat >"$doc/copyright" <<COPYRIGHT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: voxtral
Source: $repository
Comment: THIRD-PARTY.txt.gz lists the libraries that are part of the program, and their licences.

Files: *
Copyright: 2026 The voxtral authors
License: Apache-2.0
 On Debian systems, the text of the Apache License, Version 2.0 is in /usr/share/common-licenses/Apache-2.0.

Files: models/digits/*
Copyright: 2026 The voxtral authors, Zohar Jackson and others
License: CC-BY-SA-4.0
 Part of the program. The NOTICE beside this file says what it was made from; the licence is at
 https://creativecommons.org/licenses/by-sa/4.0/legalcode
COPYRIGHT

mkdir -p "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: voxtral
Version: $version-1
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: libc6 (>= ${glibc#GLIBC_}), libgcc-s1 | libgcc1
Suggests: ffmpeg
Section: sound
Priority: optional
Homepage: $repository
Description: streaming speech to text on your own machine
 voxtral writes down what is said, live or in recordings, with Mistral's open
 model Voxtral Mini 4B Realtime, on a CPU or an NVIDIA GPU. It is also a server
 for the clients of OpenAI's, Mistral's and vLLM's interfaces.
CONTROL
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
chmod -R u=rwX,go=rX "$root"
dpkg-deb --root-owner-group -Zxz --build "$root" "$dist/voxtral_$version-1_$architecture.deb"
