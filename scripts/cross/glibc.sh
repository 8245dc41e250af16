#!/usr/bin/env bash
# A release for every Linux with glibc 2.17 or newer (2014): builds it, looks at what it asks of the system, and runs it in Debian 11.
# Needs rustup, and Debian 12 or newer, as root. For another kind of CPU, it is built and looked at: scripts/cross/glibc.sh aarch64
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/cross/common.sh

oldest=2.17 target=${1:-x86_64}-unknown-linux-gnu
need 'a look at the program' readelf binutils
use_zig
rustup target add "$target"
CARGO_TARGET_DIR=target/glibc cargo zigbuild --locked --release --target "$target.$oldest"
program=target/glibc/$target/release/voxtral

printf '\n== versions of glibc that it asks for\n'
versions=$(readelf -VW "$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu)
printf '%s\n' "$versions"
[[ $(printf '%s\n' "$versions" "GLIBC_$oldest" | sort -V | tail -n 1) == "GLIBC_$oldest" ]]
[[ -z ${1:-} ]] || exit 0

# Runs the sample and the doctor, without a driver and with a library that is called like the driver's and has nothing in it.
try() {
    local fake=$1 found
    shift
    hears "$@"
    found=$("$@" doctor)
    grep -E -A 1 '^[a-z]+ +(system|driver|gpu):' <<<"$found"
    grep -q 'driver: no NVIDIA driver: libcuda.so.1 is not there' <<<"$found"
    export LD_LIBRARY_PATH=$fake
    found=$("$@" doctor)
    unset LD_LIBRARY_PATH
    grep -E '^[a-z]+ +(driver|gpu):' <<<"$found"
    grep -q 'gpu: the NVIDIA driver is too old: it has no cuInit' <<<"$found"
}
mkdir -p "$cross/fake"
cc -shared -nostdlib -o "$cross/fake/libcuda.so.1" -x c /dev/null

printf '\n== here\n'
try "$cross/fake" "$program"

printf '\n== in Debian 11\n'
old=$cross/bullseye
use_debian "$old" bullseye
rm -rf "$old/voxtral"
mkdir "$old/voxtral"
cp -r "$program" "$cross/fake" samples "$old/voxtral/"
chroot "$old" ldd --version | sed -n 1p
try /voxtral/fake chroot "$old" sh -c 'cd /voxtral && exec ./voxtral "$@"' sh
