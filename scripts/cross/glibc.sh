#!/usr/bin/env bash
# A release for every Linux with glibc 2.17 or newer (2014): builds it, looks at what it asks of the system, and runs it in Debian 11.
# Needs rustup, python3 with venv, and Debian 12 or newer, as root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/cross/common.sh

oldest=2.17
need 'a look at the program' objdump binutils
need 'an old system' debootstrap debootstrap
use_zig
CARGO_TARGET_DIR=target/glibc cargo zigbuild --locked --release --target x86_64-unknown-linux-gnu.$oldest
program=target/glibc/x86_64-unknown-linux-gnu/release/voxtral

printf '\n== versions of glibc that it asks for\n'
versions=$(objdump -T $program | grep -oE 'GLIBC_[0-9.]+' | sort -uV | sed 's/GLIBC_//')
printf '%s\n' $versions
[[ $(printf '%s\n' $versions $oldest | sort -V | tail -n 1) == "$oldest" ]]

# Runs the sample and the doctor, without a driver and with a library that is called like the driver's and has nothing in it.
try() {
    local fake=$1 said found
    shift
    said=$("$@" --silent --backend cpu samples/digits.wav)
    printf '%s\n' "$said"
    [[ $said == "$sample_says" ]]
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
[[ -e $old/etc/os-release ]] || debootstrap --variant=minbase bullseye "$old" >/dev/null
rm -rf "$old/voxtral"
mkdir "$old/voxtral"
cp -r "$program" "$cross/fake" samples "$old/voxtral/"
chroot "$old" ldd --version | head -n 1
try /voxtral/fake chroot "$old" sh -c 'cd /voxtral && exec ./voxtral "$@"' sh
