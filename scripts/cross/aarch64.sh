#!/usr/bin/env bash
# The program on 64 bit ARM: builds it for Linux and compares what it says under QEMU with what a build for this machine says. Then it runs
# the tests there, which tells nothing about speed, and checks for macOS what needs no compiler of Apple's. Needs rustup, and Debian 12 or
# newer, as root where something has to be installed.
# Arguments choose tests, which are all that is run then, and QEMU_CPU the CPU. Those that take hours run only so:
#   QEMU_CPU=cortex-a76 scripts/cross/aarch64.sh -p voxtral-cli
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/cross/common.sh

linux=aarch64-unknown-linux-gnu macos=aarch64-apple-darwin
need 'the build for aarch64' aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
use_qemu
rustup target add $linux $macos

export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="${qemu[*]}" PROPTEST_CASES=16

# Left out, with the reason.
left_out=(
    # starts itself again, which is no program of this machine
    --skip a_file_that_is_cut --skip faults_elsewhere_end_as_they_did --skip acceptance_shows_every_promise
    # a program that is not there is started by QEMU without an error
    --skip ffmpeg_is_the_second_decoder --skip what_is_not_built_in_is_named
    # counts or limits memory, of which QEMU takes some
    --skip mutated_files_neither_panic_nor_hang --skip little_memory_is_no_fault_and_ends_nothing
    --skip threads_that_cannot_be_started_are_an_error
    # a limit of the system ends QEMU before the program hears of it
    --skip a_limit_on_the_size_of_files_is_an_error
    # has to be done within some seconds
    --skip live_sessions_lose_no_token --skip a_file_is_whole_when_a_live_stream_has_ended --skip a_cancelled_upload_frees_its_slot
    --skip a_client_that_leaves --skip draining_lets_what_runs_end --skip a_long_silence_is_only_silence
    --skip words_come_while_the_upload_goes_on --skip whatever_is_sent_breaks_nothing
    # measures speed
    --skip a_slowed_kernel_is_noticed
    # hours of audio
    --skip an_hour_needs_no_more_memory_than_a_minute --skip recordings_of_several_speakers_are_understood
    # hours of arithmetic: every property of the contract on every shape. Below, those that kernels may break are tried on each
    # instruction set
    --skip same_bits_however
)

# Without facts for debuggers, which take long to link.
arm() { CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_TEST_DEBUG=false CARGO_TARGET_DIR=target/aarch64 cargo "$@"; }
# Tests start the program by its name: a script that calls QEMU stands in for the one that was built.
program=$PWD/target/aarch64/$linux/debug/voxtral
stand_in() {
    [[ $(head -c 4 "$program" 2>/dev/null) == $'\x7fELF' ]] || return 0
    cp "$program" "$program.elf"
    printf '#!/bin/sh\nexec %s -0 "$0" "%s" "$@"\n' "${qemu[*]}" "$program.elf" >"$program"
}
tests() { # QEMU's CPU, what to test
    local what=(test --locked --target "$linux" --no-fail-fast "${@:2}")
    arm "${what[@]}" --no-run
    stand_in
    QEMU_CPU=$1 arm "${what[@]}" -- "${left_out[@]}"
}

if [[ $# -gt 0 ]]; then
    tests "${QEMU_CPU:-max}" --tests "$@"
    exit
fi

printf '\n== build\n'
arm build --locked --target $linux -p voxtral-cli
stand_in

printf '\n== kernels for each CPU\n'
for cpu in cortex-a72:'portable, neon' cortex-a76:'portable, neon, neon-dotprod' \
    max:'portable, neon, neon-dotprod, neon-i8mm, neon-bf16'; do
    kernels=$(QEMU_CPU=${cpu%%:*} "$program" --version | grep '^backend cpu')
    printf '%s: %s\n' "${cpu%%:*}" "$kernels"
    [[ $kernels == "backend cpu, kernels for this CPU: ${cpu#*:}" ]]
done

printf '\n== what is said on each instruction set: in the sample, beside what is said here, and in recordings of several speakers\n'
reports=target/ci-reports packed=target/ci-reports/digits-4-bits digits=$PWD/../shared/digits/eval
mkdir -p $reports
rm -rf $packed
here() { cargo run --quiet --locked -- "$@"; }
here quantize --model models/digits --out $packed --bits 4 >/dev/null
# Weights of 8 and 4 bits are in one model. bf16 takes ten times as long as f32 here, and hears one recording.
for run in portable:digits:f32:nicolas-03 neon:digits:f32 neon:$packed:auto neon-dotprod:$packed:auto neon-i8mm:$packed:auto \
    neon-bf16:digits:auto:yweweler-17; do
    IFS=: read -r isa model precision recordings <<<"$run"
    printf '%s, %s, %s\n' "$isa" "$model" "$precision"
    how=(--backend cpu -d "$model" --precision "$precision")
    tokens=(--silent --format json --tokens samples/digits.wav -o)
    here "${how[@]}" "${tokens[@]}" $reports/here.json
    QEMU_CPU=max "$program" "${how[@]}" --isa "$isa" "${tokens[@]}" $reports/aarch64.json
    here compare $reports/here.json $reports/aarch64.json --tolerance 0 --max-drift 0.02
    if [[ -e $digits/refs.tsv ]]; then
        grep -E "^(${recordings:-yweweler-17|nicolas-03|jackson-01|theo-04|george-12|lucas-14})" "$digits/refs.tsv" |
            sed "s|^|$digits/|" >$reports/refs.tsv
        QEMU_CPU=max "$program" compare "${how[@]}" --isa "$isa" --refs $reports/refs.tsv --max-wer 0
    else
        printf 'skipped: %s is absent\n' "$digits"
    fi
done

printf '\n== tests, on a CPU with dot products of bytes; the arithmetic also with every extension\n'
# What is missing has no arithmetic of its own: the program, the server, and the engine's and the audio's longest tests.
tests cortex-a76 --tests -p voxtral-cpu -p voxtral-cuda -p voxtral-model -p voxtral-digits -p voxtral -p voxtral-transcript \
    -p voxtral-hub -p voxtral-files -p voxtral-microphone
tests cortex-a76 -p voxtral-engine --lib --test scheduling --test faults
tests cortex-a76 -p voxtral-audio --test formats --test cases
tests max -p voxtral-cpu --tests

printf '\n== macOS\n'
# What needs no C: all but downloads, and what has them in it.
CARGO_TARGET_DIR=target/macos cargo check --locked --target $macos -p voxtral-audio -p voxtral-microphone -p voxtral-transcript \
    -p voxtral-model -p voxtral-files -p voxtral-cpu -p voxtral-cuda -p voxtral-engine -p voxtral-digits
