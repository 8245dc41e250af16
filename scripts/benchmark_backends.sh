#!/usr/bin/env bash
# How fast are CPU and GPU? Usage: benchmark_backends.sh [MODEL_DIR] [SAMPLE]
# Exit code 3: there is no GPU to use. VOXTRAL names the program, if it is not on the path.
set -euo pipefail

"${VOXTRAL:-voxtral}" bench -d "${1:-digits}" --backends cpu,cuda --decode sequential "${@:2:1}"
