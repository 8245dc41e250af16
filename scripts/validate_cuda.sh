#!/usr/bin/env bash
# Does the GPU compute what the CPU computes? Usage: validate_cuda.sh [MODEL_DIR] [SAMPLE] [TOLERANCE]
# Exit code 3: there is no GPU to use, or it does not. VOXTRAL names the program, if it is not on the path.
set -euo pipefail
model=${1:-digits}
voxtral=${VOXTRAL:-voxtral}

"$voxtral" doctor -d "$model" --backend cuda
for decode in sequential parallel; do
    "$voxtral" compare -d "$model" --backends cpu,cuda --decode "$decode" --tolerance "${3:-0.005}" "${@:2:1}"
done
"$voxtral" compare -d "$model" --backend cuda --decodes sequential,parallel --tolerance 0 "${@:2:1}"
