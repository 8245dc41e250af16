"""What the tests share: the demo model on the CPU, recordings, and the program to compare with."""

from __future__ import annotations

import json
import os
import subprocess
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from voxtral_rs import Model

ROOT = Path(__file__).resolve().parents[3]
DIGITS = ROOT / "samples" / "digits.wav"
WORDS = "four seven one one nine zero two six three five eight"
RATE = 16_000


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    with Model("digits", device="cpu") as model:
        yield model


@pytest.fixture(scope="session")
def samples() -> npt.NDArray[np.int16]:
    """`DIGITS`, as numbers."""
    with wave.open(str(DIGITS)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.fixture(scope="session")
def program() -> Program:
    path = Path(os.environ.get("VOXTRAL_PROGRAM", ROOT / "target" / "debug" / "voxtral"))
    if not path.exists():
        pytest.skip(f"there is no program to compare with: {path}; build it, or name it in VOXTRAL_PROGRAM")
    return Program(path)


class Program:
    """The program `voxtral`, with the demo model on the CPU."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def writes(self, recording: Path, *flags: str) -> str:
        command: list[str | Path] = [self.path, "-d", "digits", "--backend", "cpu", "--silent", *flags, recording]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        return done.stdout

    def report(self, recording: Path, *flags: str) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.writes(recording, "--format", "json", "--tokens", *flags))
        return report
