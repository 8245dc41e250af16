#!/usr/bin/env python3
"""Writes what is linked into the program besides the project's own crates to standard output.

third_party.py licences [MANIFEST]    for people: the list, and every text of a licence once
third_party.py sbom                   for programs: a bill of materials in CycloneDX

MANIFEST is the Cargo.toml of what they are linked into: the program, unless it is named. Both are the same for all systems that there are
packages for."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

TARGETS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-pc-windows-msvc"]
NAMES = ("LICEN", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")
HEADER = """\
voxtral contains the following Rust crates, and the Rust standard library (Apache-2.0 OR MIT, The Rust Project Contributors,
https://www.rust-lang.org). On Windows it also contains the C runtime of Microsoft Visual C++ or, where it was built with MinGW, the runtimes of
mingw-w64 (ZPL-2.1 and public domain) and of GCC (GPL-3.0 WITH GCC-exception-3.1). The project's own licence is in LICENSE, and that of the
demo model in NOTICE.
"""


def linked(manifest, target):
    """The crates that are linked into this one on a system, by name and version, without the project's own."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    command += ["--manifest-path", str(manifest)]
    metadata = json.loads(subprocess.check_output(command))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    todo = [package["id"] for package in packages.values() if Path(package["manifest_path"]) == manifest]
    seen = set()
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            normal = lambda dep: any(kind["kind"] is None for kind in dep["dep_kinds"])
            todo += [dep["pkg"] for dep in nodes[node]["deps"] if normal(dep)]
    found = [packages[node] for node in seen if packages[node]["source"]]
    return {f"{package['name']} {package['version']}": package for package in found}


def licences(crates):
    """The crates and the texts that come with them."""
    users = {}  # a licence's words -> its text, and the crates that it comes with
    for name, crate in crates.items():
        folder = Path(crate["manifest_path"]).parent
        files = sorted(path for path in folder.iterdir() if path.is_file() and path.name.upper().startswith(NAMES))
        if not files and "Apache-2.0" not in (crate["license"] or ""):
            sys.exit(f"{name} ({crate['license']}) comes without its licence: add the text by hand")
        for path in files:
            text = path.read_text(errors="replace").strip()
            users.setdefault(" ".join(text.split()), (text, []))[1].append(name)

    print(HEADER)
    for name, crate in crates.items():
        print(f"{name}: {crate['license']}, {crate['repository'] or 'https://crates.io'}")
    for text, names in users.values():
        print(f"\n{'-' * 120}\n{', '.join(dict.fromkeys(names))}\n\n{text}")


def sbom(crates):
    """The crates with their checksums at crates.io."""
    lock = tomllib.loads(Path("Cargo.lock").read_text())
    sums = {f"{package['name']} {package['version']}": package.get("checksum") for package in lock["package"]}
    version = next(package["version"] for package in lock["package"] if package["name"] == "voxtral-cli")

    def component(name, crate):
        purl = f"pkg:cargo/{crate['name']}@{crate['version']}"
        return {
            "type": "library",
            "bom-ref": purl,
            "name": crate["name"],
            "version": crate["version"],
            "hashes": [{"alg": "SHA-256", "content": sums[name]}],
            "licenses": [{"expression": crate["license"].replace("/", " OR ")}],
            "purl": purl,
        }

    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "voxtral", "name": "voxtral", "version": version}},
        "components": [component(name, crate) for name, crate in crates.items()],
    }
    print(json.dumps(bom, indent=1))


def main():
    write = {"licences": licences, "sbom": sbom}[sys.argv[1]]
    manifest = Path(sys.argv[2] if len(sys.argv) > 2 else "crates/cli/Cargo.toml").resolve()
    crates = {}
    for target in TARGETS:
        crates |= linked(manifest, target)
    write(dict(sorted(crates.items())))


if __name__ == "__main__":
    main()
