"""What the documents show works as it stands."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

import voxtral_rs

PYTHON = ROOT / "bindings" / "python"
DOCUMENTS = [PYTHON / "README.md", ROOT / "docs" / "python.md"]
EXAMPLES = [
    pytest.param(code, id=f"{path.name} {number}")
    for path in DOCUMENTS
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S), 1)
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs(code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "example", "exec"), names)
    # What a line prints stands behind it.
    printed = capsys.readouterr().out
    for expected in re.findall(r"^print\(.*\)  # (.*)$", code, re.M):
        assert expected in printed


def test_the_docstring_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    results = doctest.testmod(voxtral_rs)
    assert results.attempted > 0 and results.failed == 0


def test_the_notebook_runs() -> None:
    notebook = PYTHON / "examples" / "voxtral_rs.ipynb"
    subprocess.run([Path(sys.executable).with_name("jupyter-execute"), notebook], check=True, timeout=300)
