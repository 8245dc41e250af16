#!/usr/bin/env bash
# What docs/gpu-runs keeps of a program, in one run of some minutes on a machine with a GPU: checks of the kernels and of the whole model,
# figures, transcripts against the CPU's, the kernels that the driver compiles, and compute-sanitizer where it is installed.
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

# So many seconds of the speech, repeated.
python3 - "$speech" "$work" 10 180 3600 <<'PYTHON' || exit 1
import sys, wave
source, folder, *lengths = sys.argv[1:]
with wave.open(source) as w:
    parameters, data = w.getparams(), w.readframes(w.getnframes())
for seconds in lengths:
    wanted = int(seconds) * parameters.framerate * parameters.sampwidth * parameters.nchannels
    with wave.open(f"{folder}/{seconds}.wav", "wb") as w:
        w.setparams(parameters)
        w.writeframes((data * (wanted // len(data) + 1))[:wanted])
PYTHON

SECONDS=0
"$voxtral" doctor --backend cuda || exit 1

step 'checks, then figures of kernels and passes'
must "$tests" --bench

if [[ -n $recordings ]]; then
    step 'recordings: CUDA against the CPU, and against what was said'
    for delay in 80 480 1200; do
        must last 2 "$voxtral" compare -d digits --backends cpu,cuda --delay $delay --max-drift 0.05 "$recordings"/*.wav
        must last 2 "$voxtral" compare -d digits --backend cuda --delay $delay --refs "$recordings/refs.tsv" --max-wer 0.01
    done
fi

step 'the program, random weights of the released size'
must "$voxtral" synth-model --out "$work/full"
must "$voxtral" bench -d "$work/full" --backend cuda --decode sequential --repeat 3 "$work/180.wav"
must "$voxtral" bench -d "$work/full" --backend cuda --live --repeat 1 "$speech"
# A model whose guesses hold somewhat more often than those of the demo model, which was trained.
must "$voxtral" synth-model --out "$work/guessable" --audio 30
stats() { "$voxtral" --backend cuda --format json "$@" | python3 -c 'import json, sys; [print(json.loads(line)["stats"]) for line in sys.stdin]'; }
for lookahead in 1 8 16 32; do must stats -d "$work/guessable" --decode parallel --lookahead $lookahead "$work/180.wav"; done
must stats -d "$work/guessable" "$work/180.wav"
step 'one recording of 10 s, sixteen at once, and an hour'
must stats -d "$work/full" --decode sequential "$work/10.wav"
mapfile -t sixteen < <(yes "$work/10.wav" | head -n 16)
must last 1 stats -d "$work/full" --decode sequential --jobs 16 "${sixteen[@]}"
must stats -d "$work/guessable" "$work/3600.wav"

# As many live streams as a card of 80 GB, or of 140 GB, has memory for, with five minutes of context each and with one, and beside recordings.
gpu_gb=$("$voxtral" doctor --json --backend cuda | python3 -c '
import json, sys
print(max(check["facts"].get("total_bytes", 0) for check in json.load(sys.stdin)["checks"] if check["name"] == "gpu") // 10**9)')
live() { "$voxtral" bench -d "$work/full" --backend cuda --live --seconds 20 "$@" "$speech" | tail -n 7; }
if ((gpu_gb > 70)); then
    step 'live streams: how late'
    if ((gpu_gb > 130)); then five=200 one=400; else five=110 one=200; fi
    must live --sessions $five --minutes 5
    must live --sessions $one --minutes 1
    must live --sessions 50 --minutes 1 --files 8
fi

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
# Random weights decide by a hair, and GPU and CPU may decide differently. That their arithmetic agrees at these widths is one of the
# checks above.
all_but_agreement() {
    "$@" | tee "$work/report" ||
        { grep -q ', 1 failed$' "$work/report" && grep -q '^failure *agreement' "$work/report"; }
}
must all_but_agreement "$voxtral" doctor --backend cuda --acceptance -d "$work/full" "$speech"

step "all of it: exit code $held"
exit $held
