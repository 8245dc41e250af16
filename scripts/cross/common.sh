# shellcheck shell=bash disable=SC2034 # who sources it uses the variables
# Sourced by the scripts beside it, and by .ci/package, from the sources' folder: what they need, and what the sample has to say.

source scripts/tools.sh
cross=$PWD/target/cross
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
unset VOXTRAL_MODEL LD_LIBRARY_PATH # what is tried is the built-in model,
export HF_HUB_CACHE=/no/such/cache # and not one that was downloaded
mkdir -p "$cross"

hears() { # COMMAND…: it writes down what the sample says
    local heard
    heard=$("$@" --silent --backend cpu samples/digits.wav)
    printf '%s\n' "$heard"
    [[ $heard == 'four seven one one nine zero two six three five eight' ]]
}

# `cargo zigbuild`: cargo with zig's C compiler and linker, which know every version of glibc, and musl.
use_zig() {
    python_environment "$cross/zig" scripts/cross/zig.txt
    export PATH=$cross/zig/bin:$PATH
}

# A folder with a small system of this release of Debian, unless it is there.
use_debian() { # FOLDER RELEASE
    need 'a system of its own' mmdebstrap mmdebstrap
    [[ -e $1 ]] && return
    rm -rf "$1.new"
    mmdebstrap --quiet --variant=minbase "$2" "$1.new"
    mv "$1.new" "$1"
}

# Wine, and the one library that programs in Rust ask Windows for and Wine 8 lacks: it gives random numbers, and is made from one that Wine
# has. Sets `wine`.
use_wine() {
    wine=/usr/lib/wine/wine64
    need 'a library for Wine' x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64-posix
    need 'running programs for Windows' $wine wine64
    export WINEPREFIX=$cross/wine WINEDEBUG=-all
    mkdir -p "$WINEPREFIX"
    $wine wineboot --init
    printf '%s\n' '#include <windows.h>' '#include <ntsecapi.h>' \
        '__declspec(dllexport) BOOL ProcessPrng(PBYTE to, SIZE_T count) { return RtlGenRandom(to, count); }' >"$cross/prng.c"
    x86_64-w64-mingw32-gcc -shared -o "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll" "$cross/prng.c" -ladvapi32
}

# QEMU, which runs programs for Linux on 64 bit ARM with Debian's C library. Sets `qemu`, a command.
use_qemu() {
    need 'running programs for aarch64' qemu-aarch64 qemu-user
    need 'running programs for aarch64' /usr/aarch64-linux-gnu/lib/libc.so.6 libc6-arm64-cross libgcc-s1-arm64-cross
    qemu=(qemu-aarch64 -L /usr/aarch64-linux-gnu)
}
