"""What transcribes in these tests, in the place of the model or around it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from voxtral_rs.ray.child import Heard, Transcribe, voxtral
from voxtral_rs.ray.job import DONE, Job


def trouble(job: Job) -> Transcribe:
    """The model, but for a file that says KILL, HANG or EAT."""
    model = voxtral(job)

    def transcribe(path: str) -> Heard:
        content = Path(path).read_bytes()
        match content[:4]:
            case b"KILL":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"HANG":
                time.sleep(3600)
            case b"EAT ":
                eaten: list[bytearray] = []
                while True:
                    eaten.append(bytearray(os.urandom(1_000_000)) * 10)
                    time.sleep(0.01)
        time.sleep(0.1)  # so that there is company
        return model(path)

    return transcribe


def slow(job: Job) -> Transcribe:
    """The model, a while later: there is time to disturb it."""
    return _later(0.8, voxtral(job))


def sizes(job: Job) -> Transcribe:
    """No model at all: hears how many bytes there are."""

    def transcribe(path: str) -> Heard:
        size = Path(path).stat().st_size
        return {"status": DONE, "text": f"{size} bytes", "words": [], "duration_s": 1.0, "damage": [], "notices": []}

    return transcribe


def sleepy(job: Job) -> Transcribe:
    """Takes half a second and no processor."""
    return _later(0.5, sizes(job))


def _later(seconds: float, hear: Transcribe) -> Transcribe:
    def transcribe(path: str) -> Heard:
        time.sleep(seconds)
        return hear(path)

    return transcribe


def refuses(job: Job) -> Transcribe:
    """Does not start."""
    raise ValueError("there is no engine today")
