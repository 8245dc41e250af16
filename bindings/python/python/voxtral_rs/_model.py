"""A model at work."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NoReturn, overload

from voxtral_rs import _voxtral
from voxtral_rs._audio import Recording, opened
from voxtral_rs._stream import Stream
from voxtral_rs._transcript import Transcript, transcript_of

_log = logging.getLogger("voxtral_rs")

# Transcripts that may wait for an earlier one, for each that is being made: while a long recording runs, shorter ones go on.
_AHEAD = 4


@dataclass(frozen=True)
class _Options:
    """How to transcribe, as `Model.transcribe` has it."""

    sample_rate: int | None
    delay_ms: int | None
    endpoint_ms: int | None
    tokens: bool
    channel: int | None


class Model:
    """A model on a device, for any number of transcriptions and streams at a time.

    Threads may share it; all share one copy of the weights, and each pass over them serves all. It is of one process: start others with the
    method "spawn", and open a model in each.

    Close it, or use it in a `with` statement, to free the device's memory; else that is freed with the last reference to it.
    """

    def __init__(
        self, path_or_name: str | os.PathLike[str] = "digits", device: str = "auto", *, threads: int | None = None
    ) -> None:
        """Opens a model and loads it.

        Args:
            path_or_name: A folder with the files of Voxtral Mini 4B Realtime, native or from Hugging Face, or packed; or "digits", the demo
                model inside the package, which knows spoken English digits only. The files must not be changed while it is open.
            device: "cuda" for an NVIDIA GPU, "cuda:1" for the second, "cpu", or "auto": the GPU if one can be used, else the CPU, and then
                the logger "voxtral_rs" says why.
            threads: Threads on the CPU; one for each that it runs at once if none.

        Raises:
            ModelError: The files are not those of a model.
            DeviceError: The device cannot be used.
            OutOfMemory: The device has too little memory.
        """
        if threads is not None and threads < 1:
            raise ValueError("threads is a number from 1")
        self._native = _voxtral.Model(os.fspath(path_or_name), device, threads or 0)
        if self.fallback is not None:
            _log.warning("running on the CPU: %s", self.fallback)

    @property
    def name(self) -> str:
        """The model's name, or its folder."""
        return self._native.name

    @property
    def backend(self) -> str:
        """What computes: "cpu" or "cuda"."""
        return self._native.backend

    @property
    def device(self) -> str:
        """The CPU or GPU, by its own name."""
        return self._native.device

    @property
    def fallback(self) -> str | None:
        """Why the CPU computes, where a GPU was tried first."""
        return self._native.fallback

    @property
    def delay_ms(self) -> int:
        """Milliseconds after a word until it is written, where nothing else is asked for: what the model recommends."""
        return self._native.delay_ms

    @property
    def device_bytes(self) -> int:
        """Bytes that weights and streams take on a GPU now; 0 on a CPU and after `close`."""
        return self._native.device_bytes

    def transcribe(
        self,
        recording: Recording,
        sample_rate: int | None = None,
        *,
        delay_ms: int | None = None,
        endpoint_ms: int | None = None,
        tokens: bool = False,
        channel: int | None = None,
    ) -> Transcript:
        """Transcribes a recording, all of it. Threads that wait do not hold the interpreter; Ctrl-C ends the wait.

        Args:
            recording: A path; what is in a file, as bytes; a file that is open for reading bytes, which is read to its end; or an array of
                samples, of shape `(samples,)` or `(samples, channels)`. Integers count at their full scale, floats from -1 to 1. All
                arguments are copied, or read, before this waits.
            sample_rate: Hz of an array. Files say their own.
            delay_ms: Milliseconds after a word until it is written: 80 to 1200 in steps of 80, or 2400. More is more accurate.
            endpoint_ms: Begin a new segment where nobody has spoken for so many milliseconds, 200 to 60000.
            tokens: List all tokens, too.
            channel: One channel of a file, counted from 1. The mix of all if none.

        Raises:
            AudioError: There is no audio, or reading it failed. Damaged audio is no error: `Transcript.damage` lists it.
            OutOfMemory: The device has too little memory for one more recording now.
            DeviceError: The device failed.
            VoxtralError: The model is closed, or was while this went on, or is of another process.
        """
        options = _Options(sample_rate, delay_ms, endpoint_ms, tokens, channel)
        return self._transcribe(recording, options, _voxtral.Stop())

    @overload
    def transcribe_many(
        self,
        recordings: Iterable[Recording],
        jobs: int = 16,
        sample_rate: int | None = None,
        *,
        delay_ms: int | None = None,
        endpoint_ms: int | None = None,
        tokens: bool = False,
        channel: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[Transcript]: ...

    @overload
    def transcribe_many(
        self,
        recordings: Iterable[Recording],
        jobs: int = 16,
        sample_rate: int | None = None,
        *,
        delay_ms: int | None = None,
        endpoint_ms: int | None = None,
        tokens: bool = False,
        channel: int | None = None,
        return_exceptions: Literal[True],
    ) -> Iterator[Transcript | Exception]: ...

    def transcribe_many(
        self,
        recordings: Iterable[Recording],
        jobs: int = 16,
        sample_rate: int | None = None,
        *,
        delay_ms: int | None = None,
        endpoint_ms: int | None = None,
        tokens: bool = False,
        channel: int | None = None,
        return_exceptions: bool = False,
    ) -> Iterator[Transcript | Exception]:
        """Transcribes many recordings, `jobs` at a time, and gives their transcripts in the order of the recordings.

        Recordings are taken from the iterable as they are needed. Where nobody takes transcripts any more, what is running ends.

        Args:
            recordings: Any that `transcribe` takes.
            jobs: Recordings at a time. A pass over several costs little more than over one.
            return_exceptions: Give the exception of a recording in its place, and go on, instead of raising it.

        The others are those of `transcribe`.
        """
        if jobs < 1:
            raise ValueError("jobs is a number from 1")
        options = _Options(sample_rate, delay_ms, endpoint_ms, tokens, channel)
        return self._many(recordings, jobs, options, return_exceptions)

    def stream(
        self, sample_rate: int = 16_000, *, delay_ms: int | None = None, endpoint_ms: int | None = None
    ) -> Stream:
        """Opens a stream for live audio.

        Args:
            sample_rate: Hz of the samples that will be fed.
            delay_ms: Milliseconds after a word until it is written: 80 to 1200 in steps of 80, or 2400. More is more accurate.
            endpoint_ms: End a segment where nobody has spoken for so many milliseconds, 200 to 60000.

        Raises:
            AudioError: There is no sound at this rate.
            VoxtralError: The model is closed, or of another process.
        """
        return Stream(self._native.stream(sample_rate, delay_ms=delay_ms, endpoint_ms=endpoint_ms))

    def close(self) -> None:
        """Ends all transcriptions and streams, and frees the device's memory. Whoever waits for one gets a `VoxtralError`."""
        self._native.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<voxtral_rs.Model {self.name!r} on {self.device}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Model is of one process: open it in each")

    def _transcribe(self, recording: Recording, options: _Options, stop: _voxtral.Stop) -> Transcript:
        heard = self._native.transcribe(
            opened(recording, options.sample_rate, options.channel),
            stop,
            delay_ms=options.delay_ms,
            endpoint_ms=options.endpoint_ms,
            tokens=options.tokens,
            channel=options.channel,
        )
        return transcript_of(*heard)

    def _many(
        self, recordings: Iterable[Recording], jobs: int, options: _Options, return_exceptions: bool
    ) -> Iterator[Transcript | Exception]:
        stop = _voxtral.Stop()
        pool = ThreadPoolExecutor(jobs, thread_name_prefix="voxtral_rs")
        begun: deque[Future[Transcript]] = deque()

        def first() -> Transcript | Exception:
            try:
                return begun.popleft().result()
            except Exception as error:
                if return_exceptions:
                    return error
                raise

        try:
            for recording in recordings:
                begun.append(pool.submit(self._transcribe, recording, options, stop))
                while begun and (begun[0].done() or len(begun) >= jobs * _AHEAD):
                    yield first()
            while begun:
                yield first()
        finally:
            stop.stop()
            pool.shutdown(cancel_futures=True)
