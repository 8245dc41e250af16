#!/usr/bin/env bash
# A static build with musl: it runs everywhere, and says that it cannot load the GPU's driver, whether there is one or not. Needs python3
# with venv and Debian 12 or newer, as root where something has to be installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/cross/common.sh

use_zig
use_rust_with_sources
CARGO_TARGET_DIR=target/musl CARGO_PROFILE_DEV_DEBUG=false cargo zigbuild --locked --target x86_64-unknown-linux-musl
program=target/musl/x86_64-unknown-linux-musl/debug/voxtral

[[ $(ldd "$program" 2>&1) == *'not a dynamic executable'* || $(ldd "$program" 2>&1) == *'statically linked'* ]]
"$program" --silent --backend cpu samples/digits.wav | tee /dev/stderr |
    grep -qx 'four seven one one nine zero two six three five eight'
says='a static build, as this one is, cannot load the NVIDIA driver'
"$program" --silent --backend cuda samples/digits.wav 2>&1 | tee /dev/stderr | grep -q "$says" 
found=$("$program" doctor)
grep -E -A 1 '^[a-z]+ +(driver|gpu):' <<<"$found"
grep -q "driver: $says" <<<"$found"
