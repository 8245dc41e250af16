#!/bin/sh
# Installs voxtral @VERSION@ for you alone: picks the archive for this machine, checks its sum, and puts the program, its manual and its
# completions below ~/.local. It changes nothing else and needs no root.
#   PREFIX=FOLDER       another place than ~/.local
#   VOXTRAL_URL=URL     another place of the archives
set -eu

fail() {
    printf 'install voxtral: %s\n' "$1" >&2
    exit 1
}

download() { # URL FILE
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --output "$2" "$1" || fail "cannot get $1"
    elif command -v wget >/dev/null; then
        wget --quiet --output-document="$2" "$1" || fail "cannot get $1"
    else
        fail 'this needs curl or wget'
    fi
}

# In a function, so that a script that was cut off while it came does nothing.
main() {
    url=${VOXTRAL_URL:-@REPOSITORY@/releases/download/v@VERSION@}
    prefix=${PREFIX:-$HOME/.local}
    case $prefix in
    /*) ;;
    *) prefix=$PWD/$prefix ;;
    esac

    case $(uname -s)-$(uname -m) in
    Linux-x86_64) platform=linux-x86_64 ;;
    Linux-aarch64) platform=linux-aarch64 ;;
    *) fail "there is no archive for $(uname -sm): build it from its sources, as docs/install.md says" ;;
    esac
    name=voxtral-@VERSION@-$platform

    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    trap 'exit 1' HUP INT TERM
    download "$url/$name.tar.gz" "$folder/$name.tar.gz"
    download "$url/SHA256SUMS" "$folder/SHA256SUMS"
    (
        cd "$folder"
        grep " $name.tar.gz\$" SHA256SUMS >sum || fail "SHA256SUMS does not name $name.tar.gz"
        sha256sum -c sum >/dev/null || fail "$name.tar.gz is not what SHA256SUMS says: nothing was installed"
        tar -xzf "$name.tar.gz"
    )

    cd "$folder/$name"
    # In its place at once, also where the program runs.
    mkdir -p "$prefix/bin"
    new=$prefix/bin/.voxtral.new
    trap 'rm -rf "$folder" "$new"' EXIT
    cp voxtral "$new"
    "$new" --version >/dev/null || fail 'the program does not run here: build it from its sources, as docs/install.md says'
    mv "$new" "$prefix/bin/voxtral"
    share=$prefix/share
    mkdir -p "$share/man/man1" "$share/doc/voxtral" "$share/bash-completion/completions" "$share/zsh/site-functions" \
        "$share/fish/vendor_completions.d"
    cp man/man1/* "$share/man/man1"
    cp completions/voxtral.bash "$share/bash-completion/completions/voxtral"
    cp completions/_voxtral "$share/zsh/site-functions"
    cp completions/voxtral.fish "$share/fish/vendor_completions.d"
    cp -R README.md CHANGELOG.md LICENSE NOTICE THIRD-PARTY.txt docs schemas "$share/doc/voxtral"

    printf 'installed %s\n' "$prefix/bin/voxtral"
    case :$PATH: in
    *:"$prefix/bin":*) ;;
    *) printf 'It is not on your PATH: add %s to it.\n' "$prefix/bin" ;;
    esac
    printf 'Next: voxtral doctor, voxtral download\n'
}

main
