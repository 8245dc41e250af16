# shellcheck shell=bash
# Sourced by scripts: what they need and this machine may lack.

# Installs packages of Debian: what wants them, the packages.
install_packages() {
    local why=$1
    shift
    printf '%s needs %s: installing it\n' "$why" "$*" >&2
    { apt-get update -q && apt-get install -qy --no-install-recommends "$@"; } >/dev/null || {
        printf 'cannot install %s here: install it and run this again\n' "$*" >&2
        exit 1
    }
}

# Installs packages of Debian unless a program of theirs is there: what wants them, the program, the packages.
need() { command -v "$2" >/dev/null || install_packages "$1" "${@:3}"; }

# Python with venv: what wants it.
need_python() { python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages "$1" python3 python3-venv; }

# Makes a Python environment with these packages, unless it has them: its folder, the file that lists them.
python_environment() {
    local folder=$1 packages=$2
    cmp -s "$packages" "$folder/requirements.txt" && return
    need_python "$packages"
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$packages"
    cp "$packages" "$folder/requirements.txt"
}
