"""Many recordings at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import DIGITS, RATE, WORDS

from voxtral_rs import AudioError, Model, Transcript

Samples = npt.NDArray[np.int16]


def pieces(samples: Samples) -> list[Samples]:
    """Of different lengths, the longest first."""
    return [samples[: RATE * seconds] for seconds in (8, 1, 3, 2, 7, 4, 1, 5)]


def test_order_is_kept(model: Model, samples: Samples) -> None:
    alone = [model.transcribe(piece, RATE).words for piece in pieces(samples)]
    for jobs in (1, 3, 16):
        many = model.transcribe_many(iter(pieces(samples)), jobs, RATE)
        assert [heard.words for heard in many] == alone
    assert list(model.transcribe_many([])) == []


def test_recordings_are_taken_as_they_are_needed(model: Model) -> None:
    taken = 0

    def forever() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield DIGITS

    many = model.transcribe_many(forever(), jobs=2)
    assert [next(many).text for _ in range(3)] == [WORDS] * 3
    assert taken <= 3 + 2 * 4
    before = threading.active_count()
    many.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before - 2


def test_a_bad_one_is_raised_or_given_in_its_place(model: Model) -> None:
    recordings: list[str | Path] = [DIGITS, "/no/such/file", DIGITS]
    many = model.transcribe_many(recordings, jobs=2)
    assert next(many).text == WORDS
    with pytest.raises(AudioError, match="/no/such/file"):
        next(many)
    first, bad, last = model.transcribe_many(recordings, jobs=2, return_exceptions=True)
    assert isinstance(first, Transcript) and isinstance(last, Transcript)
    assert first.words == last.words and isinstance(bad, AudioError)


def test_eight_threads_share_a_model(model: Model, samples: Samples) -> None:
    alone = [model.transcribe(piece, RATE).words for piece in pieces(samples)]
    heard: list[object] = [None] * 8

    def transcribe(number: int) -> None:
        for _ in range(3):
            heard[number] = model.transcribe(pieces(samples)[number], RATE).words

    threads = [threading.Thread(target=transcribe, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == alone


def test_other_threads_run_meanwhile(model: Model, samples: Samples) -> None:
    transcripts: list[Transcript] = []
    worker = threading.Thread(target=lambda: transcripts.append(model.transcribe(np.tile(samples, 20), RATE)))
    worker.start()
    steps = 0
    while worker.is_alive():
        worker.join(0.001)
        steps += 1
    # The one who waits looks for Ctrl-C every 50 ms. If it held the interpreter meanwhile, there would be a step for each look.
    assert steps > transcripts[0].stats.total_ms / 40
