"""The engine in a process of its own, which may crash, hang or eat memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from multiprocessing import Pipe
from typing import Any

from voxtral_rs.ray.job import Job

# A recording that ends the engine so often while nothing else runs is given up.
CRASHES = 3

# The engine did not outlive these.
DEADLY = frozenset({"crashed", "timeout", "out_of_memory"})

# How often deadlines and memory are looked at, in seconds.
LOOK_S = 0.1

# Seconds to wait before a model that does not open is opened again: another process may still hold the device's memory.
OPEN_WAITS = (1.0, 5.0, 15.0)


class EngineError(Exception):
    """The engine does not start: no recording's fault."""


class Engine:
    """Transcribes `jobs` recordings at a time, for as many threads as there are.

    If its process ends, nobody knows which of the recordings that ran it was. So each of them is tried again alone,
    until one is found guilty; the others run together again.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._process: _Process | None = None
        self._starting = threading.Lock()
        self._turns = threading.Condition()
        self._running = 0
        self._alone = False
        # How many were found guilty. A suspect remembers the number, and is no longer suspected once it has grown.
        self._guilty = 0
        self._suspects: list[int] = []

    def transcribe(self, path: str) -> dict[str, Any]:
        """What is heard in a recording, or what it did to the engine.

        Raises:
            EngineError: The engine does not start.
        """
        suspected: int | None = None
        while True:
            with self._turn(suspected) as alone:
                heard = self._try(path, CRASHES if alone else 1)
                if heard["status"] not in DEADLY:
                    return heard
                with self._turns:
                    if alone:
                        self._guilty += 1
                        return heard
                    suspected = self._guilty

    @contextmanager
    def _turn(self, suspected: int | None) -> Iterator[bool]:
        """Waits until there is room; for a suspect, until nothing else runs. Whether nothing else does."""
        with self._turns:
            if suspected is not None:
                self._suspects.append(suspected)
            self._turns.wait_for(lambda: self._has_room(suspected))
            if suspected is not None:
                self._suspects.remove(suspected)
            alone = self._alone = suspected == self._guilty
            self._running += 1
        try:
            yield alone
        finally:
            with self._turns:
                self._running -= 1
                self._alone = False
                self._turns.notify_all()

    def _has_room(self, suspected: int | None) -> bool:
        if suspected == self._guilty:
            return self._running == 0
        return self._running < self._job.jobs and not self._alone and self._guilty not in self._suspects

    def _try(self, path: str, times: int) -> dict[str, Any]:
        heard: dict[str, Any] = {}
        for _ in range(times):
            heard = self._running_process().ask(path)
            if heard["status"] != "crashed":
                break
        return heard

    def _running_process(self) -> _Process:
        with self._starting:
            for wait in (*OPEN_WAITS, None):
                if self._process is not None and self._process.is_alive():
                    return self._process
                try:
                    self._process = _Process(self._job)
                except EngineError:
                    if wait is None:
                        raise
                    time.sleep(wait)
            raise EngineError("the engine's process ends as soon as it has started")


class _Process:
    """One life of the engine."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._connection, theirs = Pipe()
        with theirs:
            # Ctrl-C is for the one who started it all.
            command = [sys.executable, "-m", "voxtral_rs.ray.child", str(theirs.fileno()), str(os.getpid())]
            self._popen = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        try:
            self._connection.send(job)
            refusal = self._connection.recv()
        except (EOFError, OSError):
            refusal = "its process ended while it started"
        if refusal is not None:
            self._popen.kill()
            self._popen.wait()
            raise EngineError(refusal)
        self._idle_mb = self._memory_mb()
        self._lock = threading.Lock()
        self._asked = 0
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._ended = False
        self._why = "crashed"
        threading.Thread(target=self._listen, daemon=True).start()

    def is_alive(self) -> bool:
        return not self._ended

    def ask(self, path: str) -> dict[str, Any]:
        """What is heard, or the status of what ended the process."""
        deadline = time.monotonic() + self._job.deadline_s
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            if self._ended:
                answer.set_result(self._end_told())
            else:
                self._asked += 1
                self._answers[self._asked] = answer
                try:
                    self._connection.send((self._asked, path))
                except OSError:
                    pass  # it has ended, and the one who listens tells
        while True:
            try:
                return answer.result(LOOK_S)
            except NotYet:
                if time.monotonic() > deadline:
                    self._end("timeout")
                elif self._memory_mb() - self._idle_mb > self._job.memory_mb * len(self._answers):
                    self._end("out_of_memory")

    def _listen(self) -> None:
        """Hands out answers until the process ends."""
        try:
            while True:
                number, heard = self._connection.recv()
                with self._lock:
                    self._answers.pop(number).set_result(heard)
        except (EOFError, OSError):
            pass
        self._popen.kill()
        self._popen.wait()
        with self._lock:
            self._ended = True
            for answer in self._answers.values():
                answer.set_result(self._end_told())
            self._connection.close()

    def _end(self, status: str) -> None:
        self._why = status
        self._popen.kill()

    def _end_told(self) -> dict[str, Any]:
        messages = {
            "crashed": f"the engine crashed {CRASHES} times on this recording",
            "timeout": f"it took more than {self._job.deadline_s:g} s",
            "out_of_memory": f"it took more than {self._job.memory_mb} MB",
        }
        return {"status": self._why, "message": messages[self._why]}

    def _memory_mb(self) -> float:
        """10⁶ bytes of its own: weights that are mapped from files do not count."""
        try:
            with open(f"/proc/{self._popen.pid}/status") as status:
                for line in status:
                    if line.startswith("RssAnon:"):
                        return int(line.split()[1]) * 1024 / 1e6
        except OSError:
            pass
        return 0.0
