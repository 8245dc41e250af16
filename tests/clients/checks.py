"""What the scripts share: where the servers are, what is said in the sample, and a line for each check."""

import asyncio
import inspect
import os
import re
import sys
import traceback
import wave
from pathlib import Path

URL = os.environ["VOXTRAL_URL"]
SAMPLE = Path(os.environ["VOXTRAL_SAMPLE"])
WORDS = "four seven one one nine zero two six three five eight"
MODEL = "whisper-1"
# No check takes longer, unless it hangs.
PATIENCE_S = 60

_checks = []


def check(function):
    """Marks a function that raises unless all is as it should be. The first of a script is its short form."""
    _checks.append(function)
    return function


def pcm() -> bytes:
    """The sample: 16 kHz, 16 bit, mono."""
    with wave.open(str(SAMPLE)) as sample:
        return sample.readframes(sample.getnframes())


def pieces(size: int) -> list[bytes]:
    """The sample in pieces of so many bytes."""
    samples = pcm()
    return [samples[at : at + size] for at in range(0, len(samples), size)]


def same(found, expected):
    """Raises unless both are equal."""
    if found != expected:
        raise AssertionError(f"{found!r} instead of {expected!r}")


def says_the_words(text: str):
    """Raises unless these are the words of the sample, whatever is between them."""
    same(" ".join(re.findall("[a-z]+", text)), WORDS)


async def _with_patience(running):
    return await asyncio.wait_for(running, PATIENCE_S)


def run():
    """Runs the checks of a script, and ends the program: with 1 if one of them failed."""
    script = Path(sys.argv[0]).stem
    failed = 0
    for function in _checks[:1] if "short" in sys.argv[1:] else _checks:
        name = f"{script}: {function.__name__.replace('_', ' ')}"
        try:
            outcome = function()
            if inspect.iscoroutine(outcome):
                asyncio.run(_with_patience(outcome))
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"ok      {name}", flush=True)
    if not _checks:
        failed = 1
    sys.exit(min(failed, 1))
