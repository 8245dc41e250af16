#!/usr/bin/env bash
# Lets the published clients of OpenAI, Mistral, vLLM and LiteLLM talk to a server of the demo model: run.sh SERVER_BINARY [short]
#
# They are installed into target/clients, from PyPI and npm. With "short", each does one thing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=scripts/tools.sh
source "$root/scripts/tools.sh"
binary=$(realpath "${1:?usage: run.sh SERVER_BINARY [short]}")
form=${2:-whole}
home=$root/target/clients

# What is installed stays until a version changes.
python_environment "$home/venv" "$here/requirements.txt"
export PATH=$home/venv/bin:$PATH NODE_PATH=$home/node_modules
if ! cmp -s "$here/package.json" "$home/installed.json"; then
    cp "$here/package.json" "$home"
    npm install --prefix "$home" --no-audit --no-fund --silent
    cp "$here/package.json" "$home/installed.json"
fi

work=$(mktemp -d)
servers=()
stop() {
    for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; done
    rm -rf "$work"
}
trap stop EXIT

# Starts a server with these flags, and prints its address.
serve() {
    local log=$work/$1.log
    shift
    : >"$log"
    "$binary" serve --listen 127.0.0.1:0 --model digits --backend cpu "$@" 2>"$log" &
    servers+=($!)
    for _ in {1..300}; do
        address=$(sed -n 's/.*serving at //p' "$log")
        [[ -z $address ]] || return 0
        kill -0 "${servers[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    printf 'the server does not start:\n%s\n' "$(cat "$log")" >&2
    return 1
}

# One that anybody may ask, and one with a key and TLS, which OpenAI's client for JavaScript insists on for live audio.
python -m trustme --quiet --dir "$work" --identities 127.0.0.1 localhost
export VOXTRAL_SAMPLE=$root/samples/digits.wav VOXTRAL_KEY=the-key NODE_EXTRA_CA_CERTS=$work/client.pem
printf '%s\n' "$VOXTRAL_KEY" >"$work/keys"
serve plain
export VOXTRAL_URL=$address
serve tls --api-key-file "$work/keys" --tls-cert "$work/server.pem" --tls-key "$work/server.key"
export VOXTRAL_TLS_URL=$address

failed=0
for client in openai_python mistral_python vllm_websockets litellm_python; do
    python "$here/$client.py" "$form" || failed=1
done
node "$here/openai_javascript.cjs" "$form" || failed=1

# They end as they should, and nothing was lost that clients left behind.
for server in "${servers[@]}"; do
    kill "$server"
    wait "$server" || { printf 'FAILED  a server ended with %d\n' $?; failed=1; }
done
servers=()
((failed == 0)) || cat "$work"/*.log
exit "$failed"
