"""Ctrl-C, forks, and the end of models."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import DIGITS, RATE, WORDS

from voxtral_rs import Model, Stream, VoxtralError

Samples = npt.NDArray[np.int16]


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """A pipe that gives nothing."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    # Open at both ends, so that nobody waits to open it, and nobody comes to its end.
    end = os.open(path, os.O_RDWR)
    yield path
    os.close(end)


@contextmanager
def ctrl_c() -> Generator[None]:
    """Comes soon."""
    # What a shell starts in the background ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    timer.join()
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_all_that_waits(model: Model, pipe: Path) -> None:
    with ctrl_c():
        model.transcribe(pipe)
    with ctrl_c():
        list(model.transcribe_many([pipe, pipe], jobs=2))
    with model.stream() as stream:
        with ctrl_c():
            next(stream)
        stream.finish()
        assert len(list(stream)) == 1
    assert model.transcribe(DIGITS).text == WORDS


def test_ctrl_c_ends_a_feed_that_waits_for_room(model: Model, samples: Samples) -> None:
    with model.stream() as stream:
        # Nobody reads, but what is fed is hours long.
        with ctrl_c():
            stream.feed(np.tile(samples, 2000))


def in_a_fork(work: Callable[[], None]) -> None:
    """Does `work` in a child of a fork, which must not hang."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            work()
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_is_told_to_spawn(model: Model) -> None:
    stream = model.stream()

    def use() -> None:
        uses: list[Callable[[], Any]] = [
            lambda: model.transcribe(DIGITS),
            lambda: next(model.transcribe_many([DIGITS])),
            model.stream,
            lambda: model.device_bytes,
            lambda: stream.feed(np.zeros(10)),
            stream.finish,
            lambda: next(stream),
        ]
        for use in uses:
            with pytest.raises(VoxtralError, match='"spawn"'):
                use()
        stream.close()
        model.close()

    in_a_fork(use)
    stream.finish()
    assert len(list(stream)) == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_drops_a_model_without_waiting_for_it() -> None:
    held: list[Model | Stream] = [Model(device="cpu")]
    held.append(held[0].stream())  # type: ignore[union-attr]

    def drop() -> None:
        held.clear()
        gc.collect()

    in_a_fork(drop)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_may_open_a_model_of_its_own(model: Model) -> None:
    def transcribe() -> None:
        with Model(device="cpu") as own:
            assert own.transcribe(DIGITS).text == WORDS

    in_a_fork(transcribe)


def transcribe_elsewhere(path: str) -> object:
    with Model(device="cpu") as model:
        return model.transcribe(path)


def test_spawned_processes_send_transcripts_back(model: Model) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        transcript: Any = pool.apply(transcribe_elsewhere, (str(DIGITS),))
    assert transcript.words == model.transcribe(DIGITS).words


def test_a_closed_model_says_so() -> None:
    model = Model(device="cpu")
    model.close()
    model.close()
    for use in (lambda: model.transcribe(DIGITS), lambda: next(model.transcribe_many([DIGITS])), model.stream):
        with pytest.raises(VoxtralError, match="the model is closed"):
            use()
    assert model.device_bytes == 0
    assert model.name == "digits" and "digits" in repr(model)


def test_closing_ends_what_is_running(samples: Samples, pipe: Path) -> None:
    model = Model(device="cpu")
    outcomes: list[str] = []

    def expect(work: Callable[[], object]) -> None:
        try:
            work()
        except VoxtralError as error:
            outcomes.append(str(error))

    stream = model.stream()
    stream.feed(samples[:RATE])
    works: list[Callable[[], object]] = [
        lambda: model.transcribe(np.tile(samples, 1000), RATE),
        lambda: model.transcribe(pipe),
        lambda: list(stream),
    ]
    threads = [threading.Thread(target=expect, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    threads[0].join(0.3)
    assert outcomes == []
    model.close()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["the engine has stopped", "the model is closed", "the model is closed"]
    with pytest.raises(VoxtralError):
        stream.feed(samples)


def threads_and_memory() -> tuple[int, int]:
    """Threads of the process, and bytes that are resident."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(os.listdir("/proc/self/task")), pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell")
@pytest.mark.parametrize("close", [True, False], ids=["closed", "dropped"])
def test_models_leave_no_threads_and_no_memory(close: bool, pipe: Path) -> None:
    def live() -> None:
        model = Model(device="cpu")
        stream = model.stream()
        stream.feed(np.zeros(RATE))
        assert model.transcribe(DIGITS).text == WORDS
        if close:
            stream.close()
            model.close()

    for _ in range(5):
        live()
    threads, memory = threads_and_memory()
    for _ in range(20):
        live()
    threads_then, memory_then = threads_and_memory()
    assert threads_then == threads
    # A model is 9 MB, and a stream about as much again.
    assert memory_then - memory < 40e6


def test_a_gpu_gets_its_memory_back() -> None:
    try:
        model = Model(device="cuda")
    except VoxtralError as error:
        pytest.skip(f"no GPU: {error}")
    assert model.transcribe(DIGITS).text == WORDS
    assert model.device_bytes > 9e6
    free = free_on_gpu()
    model.close()
    assert model.device_bytes == 0
    assert free_on_gpu() - free > 9e6


def free_on_gpu() -> int:
    """MB that the driver says are free, as bytes."""
    import subprocess

    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(query, check=True, capture_output=True, text=True).stdout) * 2**20
