# shellcheck shell=bash
# Sourced by the scripts beside it, from the sources' folder: installing what they need.

source scripts/tools.sh
cross=$PWD/target/cross
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
unset VOXTRAL_MODEL LD_LIBRARY_PATH # what is tried is the built-in model,
export HF_HUB_CACHE=/no/such/cache # and not one that was downloaded
sample_says='four seven one one nine zero two six three five eight'
mkdir -p "$cross"

# `cargo zigbuild`: cargo with zig's C compiler and linker, which know every version of glibc, and musl.
use_zig() {
    local zig=$cross/zig
    [[ -x $zig/bin/cargo-zigbuild ]] || {
        python3 -m venv "$zig"
        "$zig/bin/pip" install --quiet --disable-pip-version-check cargo-zigbuild==0.24.1 ziglang==0.17.1
    }
    export PATH=$zig/bin:$PATH
}
