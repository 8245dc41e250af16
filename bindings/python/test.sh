#!/usr/bin/env bash
# Builds the wheel of the Python package, installs it into a clean environment for each Python from 3.10 on that is here, and tests it there:
# pytest, mypy, pyright, stubs against the compiled module, the notebook. `test.sh short` takes a debug build and the newest Python only.
# Needs a Python with venv; all else comes from PyPI, into target/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/tools.sh
source ../../scripts/tools.sh

short=false
if [[ ${1:-} == short ]]; then short=true; elif [[ $# -gt 0 ]]; then sed -n '2,4p' "$0" >&2; exit 2; fi
root=$(cd ../.. && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target} CARGO_INCREMENTAL=0
work=$CARGO_TARGET_DIR/python
tools=$work/tools
mkdir -p "$work"
step() { printf '\n== %s (after %d s)\n' "$1" "$SECONDS"; }

# The newest of each minor version, newest first.
pythons() {
    local python
    { compgen -c | grep -E '^python3\.[0-9]+$' || true; printf '%s\n' "$HOME"/.pyenv/versions/*/bin/python3; } |
        while read -r python; do
            "$python" -c 'import sys, venv, ensurepip
if sys.version_info >= (3, 10) and sys._is_gil_enabled() if hasattr(sys, "_is_gil_enabled") else sys.version_info >= (3, 10):
    print(sys.version_info.minor, sys._base_executable)' 2>/dev/null || true
        done | sort -k1,1nr -u | cut -d' ' -f2
}
mapfile -t all < <(pythons)
if [[ ${#all[@]} -eq 0 ]]; then
    printf 'there is no Python from 3.10 on with venv here: install python3 and python3-venv\n' >&2
    exit 1
fi
if $short; then all=("${all[0]}"); fi

step 'tools'
python_environment "$tools" tools.txt
"$tools/bin/maturin" --version

step 'format, lints'
cargo fmt --check
PYO3_PYTHON=${all[0]} cargo clippy --locked --all-targets -- -D warnings

step 'wheel'
rm -rf "$work/wheels"
(cd "$root" && packaging/third_party.py licences bindings/python/Cargo.toml) >python/voxtral_rs/THIRD-PARTY.txt
if $short; then
    "$tools/bin/maturin" build --locked --interpreter "${all[0]}" --out "$work/wheels"
else
    PATH=$tools/bin:$PATH maturin build --locked --release --zig --compatibility manylinux2014 --interpreter "${all[0]}" \
        --out "$work/wheels"
fi
wheel=$(echo "$work"/wheels/*.whl)
ls -l "$wheel"
python3 -m zipfile -l "$wheel" | grep THIRD-PARTY.txt

for python in "${all[@]}"; do
    step "$("$python" --version), $python"
    venv=$work/venv
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install -q "${wheel}[test]"
    # What is installed is tested, not what lies here.
    (cd tests && timeout 1800 "$venv/bin/python" -m pytest -q -p no:cacheprovider -c ../pyproject.toml .)
    "$venv/bin/python" -m mypy
    PATH=$venv/bin:$PATH "$venv/bin/python" -m pyright
    "$venv/bin/python" -m mypy.stubtest voxtral_rs._voxtral
done

step 'all passed'
