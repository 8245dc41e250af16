#!/usr/bin/env bash
# All that docs/gpu-runs keeps, in one run of some minutes on a machine with a GPU: checks of the kernels and of the whole model,
# figures, transcripts against the processor's, the kernels that the driver compiles, and compute-sanitizer where it is installed.
# Usage: gpu_run.sh [SPEECH.wav] [RECORDINGS], a folder of recordings of spoken digits with their words in refs.tsv
# VOXTRAL and GPU_TESTS name the program and the test binary of voxtral-cuda; cargo builds what is not named. Takes 18 GB in TMPDIR.
# Exit code 1: something did not hold.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
speech=${1:-$root/samples/digits.wav} recordings=${2:-}
voxtral=${VOXTRAL:-} tests=${GPU_TESTS:-}
if [[ -z $voxtral ]]; then
    cargo build --release --manifest-path "$root/Cargo.toml" || exit 1
    voxtral=$root/target/release/voxtral
fi
if [[ -z $tests ]]; then
    tests=$(cd "$root" && cargo test --release -p voxtral-cuda --test gpu --no-run 2>&1 | tee /dev/stderr |
        sed -n 's/.*Executable.*(\(.*\))/\1/p' | xargs realpath) || exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

held=0
step() { printf '\n== %s (after %d s)\n' "$1" "$SECONDS"; }
must() { "$@" || { held=1 && printf 'DID NOT HOLD: %s\n' "$*"; }; }
last() { "${@:2}" | tail -n "$1"; }
only() { "${@:2}" | grep -E "$1"; }

# So many seconds of the speech, repeated.
python3 - "$speech" "$work/180.wav" 180 <<'PYTHON' || exit 1
import sys, wave
source, target, seconds = sys.argv[1:]
with wave.open(source) as w:
    parameters, data = w.getparams(), w.readframes(w.getnframes())
wanted = int(seconds) * parameters.framerate * parameters.sampwidth * parameters.nchannels
with wave.open(target, "wb") as w:
    w.setparams(parameters)
    w.writeframes((data * (wanted // len(data) + 1))[:wanted])
PYTHON

SECONDS=0
"$voxtral" doctor --backend cuda || exit 1

step 'checks, then figures of kernels and passes'
must "$tests" --bench

if [[ -n $recordings ]]; then
    step 'recordings: CUDA against the processor, and against what was said'
    for delay in 80 480 1200; do
        must last 2 "$voxtral" compare -d digits --backends cpu,cuda --delay $delay --max-drift 0.05 "$recordings"/*.wav
        must last 2 "$voxtral" compare -d digits --backend cuda --delay $delay --refs "$recordings/refs.tsv" --max-wer 0.01
    done
fi

step 'the program, random weights of the released size'
must "$voxtral" synth-model --out "$work/full"
must "$voxtral" bench -d "$work/full" --backend cuda --decode sequential --repeat 3 "$work/180.wav"
must "$voxtral" bench -d "$work/full" --backend cuda --live --repeat 1 "$speech"
# A model whose guesses hold about as often as those of one that was trained.
must "$voxtral" synth-model --out "$work/guessable" --audio 30
guess() { must only 'total|pass ' "$voxtral" bench -d "$work/guessable" --backend cuda --repeat 1 "$@" "$work/180.wav"; }
for lookahead in 8 16 32; do guess --decode parallel --lookahead $lookahead; done
guess --decode auto

step 'kernels that the driver compiles'
VOXTRAL_FORCE_PTX=1 must "$tests"
VOXTRAL_FORCE_PTX=1 must "$tests" --bench-only passes

if command -v compute-sanitizer >/dev/null; then
    step 'compute-sanitizer'
    for tool in memcheck racecheck; do
        for checks in 'every stage of digits' 'product: SiLU'; do
            must last 2 compute-sanitizer --tool $tool --error-exitcode 1 "$tests" "$checks"
        done
    done
fi

step 'acceptance'
must "$voxtral" doctor --backend cuda --acceptance
# Random weights decide by a hair, and GPU and processor may decide differently: the recordings above judge that.
all_but_agreement() { "$@" | tee "$work/report" || [[ $(sed -n 's/^failure *\([a-z]*\).*/\1/p' "$work/report") == agreement ]]; }
must all_but_agreement "$voxtral" doctor --backend cuda --acceptance -d "$work/full" "$speech"

step "all of it: exit code $held"
exit $held
