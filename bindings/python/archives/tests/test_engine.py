"""The engine in its process, without Ray: who is blamed for what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import wait_for, write_clip

from voxtral_rs.ray.engine import Engine, EngineError
from voxtral_rs.ray.job import Job

JOB = Job("", "", model="digits", device="cpu", jobs=8, deadline_s=20, memory_mb=200, engine="engines:trouble")


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [write_clip(tmp_path / f"{number:02}.wav", number) for number in range(16)]


@pytest.fixture
def children() -> Iterator[set[int]]:
    """The processes that were there before; what has come is ended."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield before
    for child in psutil.Process().children(recursive=True):
        if child.pid not in before:
            child.kill()


def heard(job: Job, paths: list[Path]) -> list[dict[str, Any]]:
    engine = Engine(job)
    with ThreadPoolExecutor(2 * job.jobs) as pool:
        return list(pool.map(engine.transcribe, map(str, paths)))


@pytest.mark.usefixtures("children")
def test_the_guilty_are_found_and_their_neighbours_are_untouched(clips: list[Path], tmp_path: Path) -> None:
    alone = heard(JOB, clips)
    assert {said["status"] for said in alone} == {"done"}
    bad = {}
    for content in (b"KILL", b"HANG", b"EAT "):
        bad[content] = tmp_path / content.decode().strip()
        bad[content].write_bytes(content)
    paths = [*clips[:3], bad[b"EAT "], *clips[3:5], bad[b"KILL"], *clips[5:9], bad[b"HANG"], *clips[9:]]
    beside = heard(JOB.__class__(**{**JOB.__dict__, "deadline_s": 4}), paths)
    assert [said for said in beside if said["status"] == "done"] == alone
    assert [said for said in beside if said["status"] != "done"] == [
        {"status": "out_of_memory", "message": "it took more than 200 MB"},
        {"status": "crashed", "message": "the engine crashed 3 times on this recording"},
        {"status": "timeout", "message": "it took more than 4 s"},
    ]


@pytest.mark.usefixtures("children")
def test_an_engine_that_is_killed_costs_nothing(clips: list[Path], children: set[int]) -> None:
    engine = Engine(JOB)
    first = engine.transcribe(str(clips[0]))
    (child,) = [child for child in psutil.Process().children() if child.pid not in children]
    child.kill()
    assert engine.transcribe(str(clips[0])) == first


@pytest.mark.usefixtures("children")
def test_an_engine_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("voxtral_rs.ray.engine.OPEN_WAITS", (0.0,))
    for job, why in [
        (Job("", "", model=str(tmp_path), device="cpu"), "no model here"),
        (Job("", "", model="digits", device="cpu", delay_ms=100), "a delay of 100 ms is not one the model knows"),
        (Job("", "", model="digits", engine="engines:refuses"), "there is no engine today"),
        (Job("", "", model="digits", engine="engines:nobody"), "nobody"),
    ]:
        with pytest.raises(EngineError, match=why):
            Engine(job).transcribe("nothing")


def test_an_engine_that_hangs_ends_with_its_worker(tmp_path: Path) -> None:
    (tmp_path / "hang").write_bytes(b"HANG")
    program = (
        "import sys; from voxtral_rs.ray.engine import Engine; from voxtral_rs.ray.job import Job;"
        "Engine(Job('', '', model='digits', device='cpu', engine='engines:trouble')).transcribe(sys.argv[1])"
    )
    worker = subprocess.Popen([sys.executable, "-c", program, tmp_path / "hang"])
    (child,) = wait_for(lambda: psutil.Process(worker.pid).children())
    wait_for(lambda: b"voxtral_rs.ray.child" in Path(f"/proc/{child.pid}/cmdline").read_bytes())
    wait_for(lambda: Path(f"/proc/{child.pid}/oom_score_adj").read_text() == "1000\n")
    child.suspend()  # now it cannot see that nobody is there
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    child.wait(10)
