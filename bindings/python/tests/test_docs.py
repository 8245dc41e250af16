"""What the documents show works as it stands."""

from __future__ import annotations

import re
from typing import Any

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

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
    for expected in re.findall(r"^print\(.*\)  # (.*)$", code, re.M):
        assert expected in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in sorted((PYTHON / "examples").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
