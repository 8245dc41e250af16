#!/usr/bin/env bash
# The program on Windows: builds it and all tests with MinGW, and runs them under Wine. Then it compares what the program says there with
# what a build for this machine says, has a file cut under it, shows it a library that is called like the driver's, and checks for
# Microsoft's compiler what needs none of it. Needs rustup, and Debian 12 or newer, as root where something has to be installed.
# Arguments choose tests, which are all that is run then: scripts/cross/windows.sh -p voxtral-files
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/cross/common.sh

gnu=x86_64-pc-windows-gnu msvc=x86_64-pc-windows-msvc wine=/usr/lib/wine/wine64
need 'the build for Windows' x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64-posix
need 'the tests on Windows' $wine wine64
rustup target add $gnu $msvc

export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$wine
export WINEPREFIX=$cross/wine WINEDEBUG=-all
mkdir -p "$WINEPREFIX"
$wine wineboot --init
# Rust takes random numbers from a library of Windows that Wine 8 lacks; this one asks another.
printf '%s\n' '#include <windows.h>' '#include <ntsecapi.h>' \
    '__declspec(dllexport) BOOL ProcessPrng(PBYTE to, SIZE_T count) { return RtlGenRandom(to, count); }' >"$cross/prng.c"
x86_64-w64-mingw32-gcc -shared -o "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll" "$cross/prng.c" -ladvapi32

# What Windows cannot do has `#[cfg(unix)]` in the sources; what only Wine cannot is left out here, with the reason.
left_out=(
)

# A profile without facts for debuggers: MinGW's fill the disk.
tests() { CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_TEST_DEBUG=false cargo test --locked --target $gnu --lib --bins --tests "$@"; }

if [[ $# -gt 0 ]]; then
    tests "$@" -- "${left_out[@]}"
    exit
fi

printf '\n== tests\n'
tests --workspace --no-fail-fast -- "${left_out[@]}"
program() { $wine target/$gnu/debug/voxtral.exe "$@"; }

printf '\n== the same words as here\n'
reports=target/ci-reports
mkdir -p $reports
here() { cargo run --quiet --locked -- "$@"; }
here --silent --backend cpu --format json --tokens -o $reports/here.json samples/digits.wav
program --silent --format json --tokens -o $reports/windows.json samples/digits.wav
here compare $reports/here.json $reports/windows.json --tolerance 0 --max-drift 0.02

printf '\n== recordings of several speakers\n'
digits=$PWD/../shared/digits/eval
if [[ -e $digits/refs.tsv ]]; then
    program compare --backend cpu --refs "$digits/refs.tsv" --max-wer 0 | tail -n 2
else
    printf 'skipped: %s is absent\n' "$digits"
fi

printf '\n== a model that is cut while it is in use\n'
model=$(mktemp -d)
cp models/digits/{params.json,tekken.json,consolidated.safetensors} "$model"
audio() {
    head -c 100000 samples/digits.wav
    sleep 10
    truncate -s 1000 "$model/consolidated.safetensors"
    tail -c +100001 samples/digits.wav
}
said=$(audio | program --silent -d "Z:$model" - 2>&1 >/dev/null) && code=0 || code=$?
rm -r "$model"
printf '%s\n' "$said"
[[ $code == 1 && $said == *'consolidated.safetensors: the file was cut'* ]]

printf '\n== a driver without a function\n'
x86_64-w64-mingw32-gcc -shared -o "$WINEPREFIX/drive_c/windows/system32/nvcuda.dll" -x c /dev/null
found=$(program doctor)
rm "$WINEPREFIX/drive_c/windows/system32/nvcuda.dll"
grep -E '^[a-z]+ +(driver|gpu):' <<<"$found"
[[ $found == *'gpu: the NVIDIA driver is too old: it has no cuInit'* ]]

printf "\n== Microsoft's compiler\n"
# What needs no C: all but downloads and the server, and what has them in it.
CARGO_TARGET_DIR=target/msvc cargo check --locked --target $msvc -p voxtral-audio -p voxtral-microphone -p voxtral-transcript \
    -p voxtral-model -p voxtral-files -p voxtral-cpu -p voxtral-cuda -p voxtral-engine -p voxtral-digits -p voxtral
