#!/usr/bin/env bash
# The program on 64 bit ARM: builds it and all tests for Linux, and runs them under QEMU, which tells nothing about speed. Then it compares
# what the program says there with what a build for this machine says, and checks what needs no compiler of Apple's for macOS. Needs
# rustup, and Debian 12 or newer, as root where something has to be installed.
# Arguments go to the tests: scripts/cross/aarch64.sh -p voxtral-cpu
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/cross/common.sh

linux=aarch64-unknown-linux-gnu macos=aarch64-apple-darwin
need 'the build for aarch64' aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
need 'the tests on aarch64' qemu-aarch64 qemu-user
rustup target add $linux $macos

here() { cargo run --quiet --locked -- "$@"; }
reports=$PWD/target/ci-reports
mkdir -p "$reports"

export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
emulated='qemu-aarch64 -L /usr/aarch64-linux-gnu'
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$emulated
export CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_TEST_DEBUG=false # half of the disk

# Left out, with the reason.
left_out=(
)

printf '\n== build\n'
build() { cargo test --locked --target $linux --lib --bins --tests "$@"; }
[[ $# -gt 0 ]] || set -- --workspace --exclude xtask
build --workspace --exclude xtask --no-run
# Tests start the program by its name: there, a script that calls QEMU stands in for it.
program=$PWD/target/$linux/debug/voxtral
if [[ $(head -c 4 "$program") == $'\x7fELF' ]]; then
    cp "$program" "$program.elf"
    printf '#!/bin/sh\nexec %s -0 "$0" "%s" "$@"\n' "$emulated" "$program.elf" >"$program"
fi

printf '\n== tests, on a CPU with every extension\n'
QEMU_CPU=max PROPTEST_CASES=32 build "$@" -- "${left_out[@]}"

printf '\n== instruction sets\n'
# QEMU's CPUs, and what kernels there are for them.
for cpu in max:'portable, neon, neon-dotprod, neon-i8mm, neon-bf16' cortex-a72:'portable, neon' cortex-a76:'portable, neon, neon-dotprod'; do
    version=$(QEMU_CPU=${cpu%%:*} "$program" --version)
    printf '%s: %s\n' "${cpu%%:*}" "$(grep 'backend cpu' <<<"$version")"
    grep -qx "backend cpu, kernels for this CPU: ${cpu#*:}" <<<"$version"
done
