#!/usr/bin/env bash
# The program on Windows: builds it and all tests with MinGW, and runs them under Wine. Then it compares what it says with what a build
# for this machine says, and has a file cut under it. Needs Debian 12 or newer, as root where something has to be installed.
# Arguments go to the tests: scripts/cross/windows.sh -p voxtral-files
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/cross/common.sh

wine=/usr/lib/wine/wine64
need 'the build for Windows' x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64-posix
need 'the tests on Windows' $wine wine64

# Left out under Wine, with the reason. What Windows itself cannot do has `#[cfg(unix)]` in the sources.
left_out=()

voxtral() { cargo run --quiet --locked -- "$@"; }
mkdir -p target/ci-reports
here=target/ci-reports/here.json there=target/ci-reports/windows.json
voxtral --silent --backend cpu --format json --tokens -o $here samples/digits.wav

export CARGO_TARGET_DIR=target/windows CARGO_BUILD_TARGET=x86_64-pc-windows-gnu
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$wine
export CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_TEST_DEBUG=false # half of the disk
export WINEPREFIX=$PWD/target/windows/wine WINEDEBUG=-all
use_rust_with_sources

# Rust takes random numbers from a library of Windows that Wine 8 lacks; this one asks another.
printf '%s\n' '#include <windows.h>' '#include <ntsecapi.h>' \
    '__declspec(dllexport) BOOL ProcessPrng(PBYTE to, SIZE_T count) { return RtlGenRandom(to, count); }' >"$cross/prng.c"
mkdir -p "$WINEPREFIX"
$wine wineboot --init
x86_64-w64-mingw32-gcc -shared -o "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll" "$cross/prng.c" -ladvapi32

printf '\n== tests\n'
[[ $# -gt 0 ]] || set -- --workspace
cargo test --locked --lib --bins --tests "$@" -- "${left_out[@]}"

printf '\n== the same words as here\n'
voxtral --silent --format json --tokens -o $there samples/digits.wav
voxtral compare $here $there --tolerance 0 --max-drift 0.02

printf '\n== a model that is cut while it is in use\n'
model=$(mktemp -d)
cp models/digits/{params.json,tekken.json,consolidated.safetensors} "$model"
says=$({ head -c 100000 samples/digits.wav; sleep 5; truncate -s 1000 "$model/consolidated.safetensors"; tail -c +100001 samples/digits.wav; } |
    voxtral --silent -d "Z:$model" - 2>&1 >/dev/null) && code=0 || code=$?
rm -r "$model"
printf '%s\n' "$says"
[[ $code == 1 && $says == *consolidated.safetensors:\ the\ file\ was\ cut* ]]
