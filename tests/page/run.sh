#!/usr/bin/env bash
# Opens the page of a `voxtral serve` in a real Chromium. usage: run.sh VOXTRAL [SCREENSHOTS]
set -euo pipefail
voxtral=$(realpath "$1")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

source scripts/tools.sh
need 'the test of the page' chromium chromium fonts-dejavu-core
chromium --version
venv=target/page-venv
python_environment "$venv" tests/page/requirements.txt
"$venv/bin/python" tests/page/page.py "$voxtral" samples/digits.wav 'four seven one one nine zero two six three five eight' "$@"
