#!/usr/bin/env bash
# Opens the page of a `voxtral serve` in a real Chromium. usage: run.sh VOXTRAL [SCREENSHOTS]
set -euo pipefail
voxtral=$(realpath "$1")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if ! chromium --version >/dev/null 2>&1; then
    printf 'the test of the page needs chromium: installing it\n'
    { apt-get update -q && apt-get install -qy --no-install-recommends chromium fonts-dejavu-core; } >/dev/null || {
        printf 'cannot install chromium here: install it and run this again\n' >&2
        exit 1
    }
fi
venv=target/page-venv
if ! cmp -s tests/page/requirements.txt "$venv/requirements.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/page/requirements.txt
    cp tests/page/requirements.txt "$venv/"
fi
"$venv/bin/python" tests/page/page.py "$voxtral" samples/digits.wav 'four seven one one nine zero two six three five eight' "$@"
