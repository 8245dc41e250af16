# Sourced by the scripts beside it, from the sources' folder: installing what they need.

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

# `cargo zigbuild`: cargo with zig's C compiler and linker, which know every version of glibc, and musl.
use_zig() {
    local zig=$cross/zig
    [[ -x $zig/bin/cargo-zigbuild ]] || {
        python3 -m venv "$zig"
        "$zig/bin/pip" install --quiet --disable-pip-version-check cargo-zigbuild==0.24.1 ziglang==0.17.1
    }
    export PATH=$zig/bin:$PATH
}
