# Sourced by the scripts beside it, from the sources' folder: installing what they need, and a Rust for targets of which rustup's
# toolchain has no standard library.

cross=$PWD/target/cross
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
unset VOXTRAL_MODEL LD_LIBRARY_PATH # what is tried is the built-in model,
export HF_HUB_CACHE=/no/such/cache # and not one that was downloaded
mkdir -p "$cross"

# Installs packages of Debian unless a program of theirs is there: what wants them, the program, the packages.
need() {
    local why=$1 program=$2
    shift 2
    command -v "$program" >/dev/null && return
    printf '%s needs %s: installing it\n' "$why" "$*"
    { apt-get update -q && apt-get install -qy --no-install-recommends "$@"; } >/dev/null || {
        printf 'cannot install %s here: install it and run this again\n' "$*" >&2
        exit 1
    }
}

# zig's C compiler and linker, which know every version of glibc, and musl; and cargo with them.
use_zig() {
    local zig=$cross/zig
    [[ -x $zig/bin/cargo-zigbuild ]] || {
        python3 -m venv "$zig"
        "$zig/bin/pip" install --quiet --disable-pip-version-check cargo-zigbuild==0.24.1 ziglang==0.17.1
    }
    export PATH=$zig/bin:$PATH
}

# A compiler and the sources of its standard library, which have to be of one version: Debian's archive has both. They are unpacked
# beside the toolchain that builds everything else. From then on cargo uses them, and builds the standard library, too.
use_rust_with_sources() {
    local rust=$cross/rust debs packages
    if [[ ! -e $rust/whole ]]; then
        printf 'the standard library has to be built: getting a compiler and its sources\n'
        debs=$(mktemp -d)
        apt-get update -q >/dev/null
        packages=$(apt-cache depends --recurse --important rustc-web | grep -E '^(rustc-web|libstd-rust-web.*|libllvm[0-9.]*)$')
        # shellcheck disable=SC2086 # several words
        (cd "$debs" && apt-get download -q $packages rust-web-src >/dev/null 2>&1) || {
            printf 'cannot get rustc-web and rust-web-src here: this needs Debian 12 with its security updates, or newer\n' >&2
            exit 1
        }
        rm -rf "$rust"
        for deb in "$debs"/*.deb; do dpkg -x "$deb" "$rust"; done
        rm -r "$debs" "$rust"/usr/share "$rust"/usr/src/*/{src,compiler} # much, and not needed
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$rust/usr/lib/x86_64-linux-gnu" "$rust/usr/bin/rustc" >"$rust/rustc"
        chmod +x "$rust/rustc"
        touch "$rust/whole"
    fi
    export RUSTC=$rust/rustc RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_unwind
    "$RUSTC" --version
}
