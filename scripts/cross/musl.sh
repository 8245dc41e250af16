#!/usr/bin/env bash
# A static build with musl: it runs everywhere, and says that it cannot load the GPU's driver, whether there is one or not. Needs rustup,
# and Python with venv, which it installs on Debian.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/cross/common.sh

use_zig
rustup target add x86_64-unknown-linux-musl
CARGO_TARGET_DIR=target/musl CARGO_PROFILE_DEV_DEBUG=false cargo zigbuild --locked --target x86_64-unknown-linux-musl
program=target/musl/x86_64-unknown-linux-musl/debug/voxtral

printf '\n== no library is asked for\n'
libraries=$(ldd "$program" 2>&1) || true
printf '%s\n' "$libraries"
[[ $libraries == *'not a dynamic executable'* || $libraries == *'statically linked'* ]]

printf '\n== the sample, and what is said of the driver\n'
hears "$program"
says='a static build, as this one is, cannot load the NVIDIA driver'
said=$("$program" --silent --backend cuda samples/digits.wav 2>&1) && code=0 || code=$?
printf '%s\n' "$said"
[[ $code == 1 && $said == *"$says"* ]]
found=$("$program" doctor)
grep -E -A 1 '^[a-z]+ +(driver|gpu):' <<<"$found"
grep -q "driver: $says" <<<"$found"
