#!/usr/bin/env bash
# Does the GPU write what the CPU writes? Usage: accuracy_regression.sh [MODEL_DIR] [SAMPLE] [TOLERANCE]
# Exit code 3: there is no GPU to use, or more words differ than TOLERANCE allows. VOXTRAL names the program, if it is not on the path.
set -euo pipefail

"${VOXTRAL:-voxtral}" compare -d "${1:-digits}" --backends cpu,cuda --tolerance "${3:-0.005}" "${@:2:1}"
