"""The process of the engine: it transcribes what its parent asks for, and ends with its parent.

    python -m voxtral_rs.ray.child CONNECTION PARENT

Whatever a recording does to this process, the worker that started it goes on.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from voxtral_rs import AudioError, DeviceError, Model, OutOfMemory, VoxtralError
from voxtral_rs.ray.job import DONE, NOT_DONE, Job

Heard = dict[str, Any]
"""What a transcript's object says beside what it is of: at least a `status`."""

Transcribe = Callable[[str], Heard]

# What the library says of audio without a sample.
EMPTY = ("the input is empty", "there is not a single sample")


def voxtral(job: Job) -> Transcribe:
    """Opens the model of a job."""
    model = Model(job.model, device=job.device or "auto")
    # Options that are none are told now, and not once for each recording.
    model.stream(delay_ms=job.delay_ms, endpoint_ms=job.endpoint_ms).close()

    def transcribe(path: str) -> Heard:
        try:
            heard = model.transcribe(
                path, delay_ms=job.delay_ms, endpoint_ms=job.endpoint_ms, tokens=job.tokens, channel=job.channel
            )
        except AudioError as error:
            message = str(error).removeprefix(f"{path}: ")
            if isinstance(error.__cause__, OSError):
                return {"status": NOT_DONE, "message": message}
            status = "empty" if message.startswith(EMPTY) else "unreadable"
            return {"status": status, "message": message}
        except OutOfMemory as error:
            return {"status": "out_of_memory", "message": str(error)}
        except DeviceError:
            # The device is of no more use to this process.
            raise
        except VoxtralError as error:
            return {"status": "failed", "message": str(error)}
        report = heard.to_dict()
        said: Heard = {name: report[name] for name in ("text", "words", "segments", "tokens") if name in report}
        return {
            **said,
            "status": "damaged" if heard.damage else DONE,
            "duration_s": heard.duration,
            "damage": report["audio"]["damage"],
            "notices": list(heard.notices),
        }

    return transcribe


def serve(connection: Connection) -> None:
    """Opens the engine that the first message names, then answers `(number, path)` with `(number, heard)`."""
    job: Job = connection.recv()
    module, function = job.engine.split(":")
    try:
        transcribe: Transcribe = getattr(importlib.import_module(module), function)(job)
    except Exception as error:
        connection.send(str(error) or type(error).__name__)
        return
    connection.send(None)
    sending = threading.Lock()

    def answer(number: int, path: str) -> None:
        try:
            heard = transcribe(path)
            with sending:
                connection.send((number, heard))
        except BaseException as error:
            print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)

    with ThreadPoolExecutor(job.jobs) as pool:
        while True:
            try:
                pool.submit(answer, *connection.recv())
            except EOFError:
                os._exit(0)


def end_with(parent: int) -> None:
    """Ends this process when its parent is gone, even where it hangs."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # Where memory runs out, Linux is to end this process and not the worker.
        Path("/proc/self/oom_score_adj").write_text("1000")
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    end_with(int(sys.argv[2]))
    serve(Connection(int(sys.argv[1])))
