"""Live audio in, events out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import numpy.typing as npt

from voxtral_rs import _voxtral
from voxtral_rs._audio import interleaved
from voxtral_rs._transcript import Segment, Word


@dataclass(frozen=True)
class Partial:
    """The text goes on with this. What was told before stays as it is."""

    text: str
    at: float
    """Seconds of audio that have been transcribed."""


Event = Partial | Word | Segment
"""What a stream tells: text as soon as it is certain, words when they are complete, and what was said between two pauses."""


Told = (
    tuple[Literal["partial"], str, float]
    | tuple[Literal["word"], str, float, float, float]
    | tuple[Literal["final"], str, float, float]
)
"""An event as the native half has it."""


class Stream(Iterator[Event], AsyncIterator[Event]):
    """Live audio of one speaker or room; `Model.stream` opens one.

    Feed samples as they come, and take events, with `for` or `async for`, on the same thread or on another. A `Partial` comes the delay
    after a word was spoken. `finish` ends the audio; the last event is a `Segment`. Without `endpoint_ms` it is the only one, and has all
    of the text.

    Nothing is lost if somebody falls behind: events wait for their reader, and `feed` waits where ten seconds of audio wait already.
    """

    def __init__(self, native: _voxtral.Stream) -> None:
        self._native = native

    def feed(self, samples: npt.ArrayLike) -> None:
        """Adds audio: an array of shape `(samples,)` or `(samples, channels)`, of any length, at the stream's rate.

        Integers count at their full scale, floats from -1 to 1. Channels are mixed. The array is copied, and may be used again at once.
        """
        self._native.feed(*interleaved(samples))

    def finish(self) -> None:
        """Ends the audio. What was fed is transcribed to its end."""
        self._native.finish()

    @property
    def notices(self) -> list[str]:
        """What is worth a line about the audio that was fed, such as samples that are no numbers. None after `finish`."""
        return self._native.notices()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Event:
        told = self._native.next()
        if told is None:
            raise StopIteration
        return _event(told)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Event:
        while True:
            told, ended = self._native.poll()
            if told is not None:
                return _event(told)
            if ended:
                raise StopAsyncIteration
            await _readable(self._native.fileno())

    def close(self) -> None:
        """Ends the stream where it is, and frees its memory. Whoever feeds or reads it gets a `VoxtralError`."""
        self._native.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _event(told: Told) -> Event:
    """As files have it: times to the millisecond, log-probabilities to six decimals."""
    if told[0] == "partial":
        return Partial(told[1], round(told[2], 3))
    if told[0] == "word":
        return Word(told[1], round(told[2], 3), round(told[3], 3), round(told[4], 6))
    return Segment(told[1], round(told[2], 3), round(told[3], 3))


async def _readable(file: int) -> None:
    """Waits, without a thread, until there is something to read."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(file, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(file)
