#!/usr/bin/env bash
# The program on Windows: builds it and all tests with MinGW, and runs them under Wine. Then it compares what the program says there with
# what a build for this machine says, has a file cut under it, ends it with Ctrl-C, shows it a library that is called like the driver's,
# and checks for Microsoft's compiler what needs none of it. Needs rustup, and Debian 12 or newer, as root where something has to be
# installed.
# Arguments choose tests, which are all that is run then: scripts/cross/windows.sh -p voxtral-files
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/cross/common.sh

gnu=x86_64-pc-windows-gnu msvc=x86_64-pc-windows-msvc
use_wine
need 'the server on Windows' curl curl
need 'the server on Windows' openssl openssl
rustup target add $gnu $msvc
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$wine

# A profile without facts for debuggers: MinGW's fill the disk.
tests() { CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_TEST_DEBUG=false cargo test --locked --target $gnu --tests "$@"; }

if [[ $# -gt 0 ]]; then
    tests "$@"
    exit
fi

printf '\n== tests\n'
tests --workspace --no-fail-fast
exe=target/$gnu/debug/voxtral.exe
program() { $wine $exe "$@"; }

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
model=$(mktemp -d) folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$model" "$folder"' EXIT
cp models/digits/{params.json,tekken.json,consolidated.safetensors} "$model"
audio() {
    head -c 100000 samples/digits.wav
    sleep 10
    truncate -s 1000 "$model/consolidated.safetensors"
    tail -c +100001 samples/digits.wav
}
said=$(audio | program --silent -d "Z:$model" - 2>&1 >/dev/null) && code=0 || code=$?
printf '%s\n' "$said"
[[ $code == 1 && $said == *'consolidated.safetensors: the file was cut'* ]]

printf '\n== Ctrl-C, for which Wine takes SIGINT\n'
# Waits for a line of a file; for the end of a program, whose exit code it returns.
told() { timeout 60 bash -c 'until grep -qs "$0" "$1"; do sleep 0.1; done' "$1" "$2"; }
ended() { timeout 60 tail --pid="$1" -f /dev/null && wait "$1"; }
mkfifo "$folder/pipe"
exec 3<>"$folder/pipe" # so it has no end
$wine $exe --silent - <"$folder/pipe" >"$folder/said" &
live=$!
head -c 150000 samples/digits.wav >&3
told four "$folder/said"
kill -INT $live
ended $live
exec 3>&-
cat "$folder/said"

printf '\n== a server with a key and TLS, and Ctrl-C while it works\n'
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 \
    -keyout "$folder/key.pem" -out "$folder/certificate.pem" 2>/dev/null
printf '\xef\xbb\xbfsecret\r\n' >"$folder/keys" # as editors of Windows write it
ask() { curl -sS --cacert "$folder/certificate.pem" "$@"; }
# A server that has been told to end while it gets a recording.
draining() {
    $wine $exe serve --listen 127.0.0.1:0 --api-key-file "Z:$folder/keys" --tls-cert "Z:$folder/certificate.pem" \
        --tls-key "Z:$folder/key.pem" 2>"$folder/log" &
    server=$!
    told 'serving at' "$folder/log"
    address=$(grep -o 'https://[0-9.:]*' "$folder/log")
    ask --limit-rate 40k -H 'authorization: Bearer secret' -F model=digits -F file=@samples/digits.wav \
        "$address/v1/audio/transcriptions" >"$folder/said" &
    asking=$!
    for _ in {1..100}; do
        ask "$address/metrics" | grep -c '^voxtral_streams_active 1$' >/dev/null && break
        sleep 0.1
    done
    kill -INT $server
    told 'taking no more requests' "$folder/log"
}
draining
[[ $(ask "$address/ready") == *server_draining* ]]
wait $asking
cat "$folder/said"
[[ $(<"$folder/said") == *'four seven one'* ]]
ended $server
draining
kill -INT $server
ended $server && code=0 || code=$?
wait $asking || true # curl says that it was cut short
[[ $code == 130 ]]

printf '\n== doctor: no driver, and one without a function\n'
found=$(program doctor 2>/dev/null) # where ALSA complains
driver='no NVIDIA driver: nvcuda.dll is not in C:\windows\System32'
grep -E '^[a-z]+ +(driver|gpu|audio):' <<<"$found"
[[ $found == *"$driver"* && $found == *WASAPI* ]]
x86_64-w64-mingw32-gcc -shared -o "$WINEPREFIX/drive_c/windows/system32/nvcuda.dll" -x c /dev/null
found=$(CUDA_VISIBLE_DEVICES=9 program doctor 2>/dev/null)
rm "$WINEPREFIX/drive_c/windows/system32/nvcuda.dll"
grep -E '^[a-z]+ +(driver|gpu):' <<<"$found"
[[ $found == *'gpu: the NVIDIA driver is too old: it has no cuInit'*PowerShell* ]]

printf "\n== Microsoft's compiler\n"
# What needs no C: all but downloads and the server, and what has them in it.
CARGO_TARGET_DIR=target/msvc cargo check --locked --target $msvc -p voxtral-audio -p voxtral-microphone -p voxtral-transcript \
    -p voxtral-model -p voxtral-files -p voxtral-cpu -p voxtral-cuda -p voxtral-engine -p voxtral-digits -p voxtral
