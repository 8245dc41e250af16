#!/usr/bin/env bash
# Builds the image of the Dockerfile and tries it: the sample, and a pod's server with the check of its health. No registry is asked: the two
# images that it begins with are made of Debian's packages, and this machine's Rust is mounted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source packaging/common.sh
source scripts/cross/common.sh

need 'the image' buildah buildah
need 'the image' mmdebstrap mmdebstrap
need 'a network of its own' ip iproute2
export BUILDAH_ISOLATION=chroot work
image() { buildah --root "$work/images" --runroot "$work/images/run" --storage-driver vfs "$@"; }
export -f image
first_image() { # NAME, options of mmdebstrap
    local container
    image inspect --type image "$1" >/dev/null 2>&1 && return
    container=$(image from scratch)
    mmdebstrap --quiet --variant=minbase "${@:2}" bookworm "$(image mount "$container")"
    image config --env PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        --env CARGO_HOME=/usr/local/cargo "$container"
    image commit --quiet --rm "$container" "$1"
}
first_image docker.io/library/rust:1.95-bookworm --include=gcc,libc6-dev,python3
first_image docker.io/library/debian:bookworm-slim
TMPDIR=$work image build --quiet --format docker --pull-never --tag voxtral --volume "$(rustc --print sysroot):/usr/local/rust:ro" \
    --volume /etc/ssl/certs:/etc/ssl/certs:ro .

container=$(image from --pull-never localhost/voxtral)
trap 'image rm "$container" >/dev/null' EXIT
image run "$container" -- bash -c '[[ -s /usr/share/doc/voxtral/THIRD-PARTY.txt ]]'
hears image run --volume "$PWD/samples:/samples:ro" "$container" -- voxtral

# In a network of its own, what a pod runs and how the image asks for its health.
mapfile -t command < <("$(helm_program)" template voxtral deploy/helm/voxtral --set keysSecret=,model.name=digits |
    sed -nE 's/^ *- (serve|--.*)$/\1/p')
health=$(sed -nE 's/^HEALTHCHECK .*CMD (\[.*\])$/\1/p' Dockerfile | python3 -c 'import json, shlex, sys; print(shlex.join(json.load(sys.stdin)))')
# shellcheck disable=SC2016 # the other bash expands it
unshare --net bash -euc 'ip link set lo up && image run "$@"' - "$container" -- bash -euc '
    health=$1
    if eval "$health" 2>/dev/null; then echo "a server that is not there is healthy" >&2; exit 1; fi
    voxtral "${@:2}" 2>/dev/null &
    for _ in {1..100}; do eval "$health" 2>/dev/null && break; sleep 0.1; done
    eval "$health"
    kill $!
    wait $!
' - "$health" "${command[@]}"
printf 'its server is healthy, and ends when it is told to\n'
