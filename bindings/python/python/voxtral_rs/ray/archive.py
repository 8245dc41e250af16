"""The driver: what is not done yet, through the workers, into the summary."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

import ray
import ray.data
import ray.exceptions
from voxtral_rs.ray import manifest, store
from voxtral_rs.ray.job import TRANSCRIBED, ArchiveError, Job, not_done
from voxtral_rs.ray.progress import Progress
from voxtral_rs.ray.transcripts import ROW, SUMMARY, Objects, Row, Shards, lock
from voxtral_rs.ray.worker import NO_ENGINE, Worker

TODO = pa.schema([("key", pa.string()), ("etag", pa.string()), ("name", pa.string())])

# Recordings in a task of Ray: few enough that all workers end at the same time, many enough that tasks cost nothing.
MOST_IN_A_TASK = 64

# Workers in a row that may be lost before they begin: more have a reason, such as machines without the package.
WORKERS_LOST = 20

# In a shard, which a task writes.
MOST_IN_A_SHARD = 1000


def run(job: Job) -> Progress:
    """As `voxtral_rs.ray.run`."""
    job = replace(job, manifest=store.absolute(job.manifest), out=store.absolute(job.out).rstrip("/"))
    progress = Progress()
    try:
        with lock(job.out) if job.shards else nullcontext(), Summary(job.out) as summary:
            todo = _todo(job, progress, summary)
            try:
                if todo:
                    _transcribe(_with_workers(job), todo, progress, summary)
            finally:
                for name, (key, etag) in todo.items():
                    row = not_done(key, etag, "the run ended before")
                    progress.add(row)
                    summary.add(row)
                progress.show(last=True)
                summary.write()
    except (store.StorageError, OSError) as error:
        raise ArchiveError(str(error)) from error
    except ray.exceptions.RayError as error:
        raise ArchiveError(f"Ray failed: {error}") from error
    return progress


def _todo(job: Job, progress: Progress, summary: Summary) -> dict[str, tuple[str, str]]:
    """Key and version of what is to be transcribed, by the name of its object. What is there goes into the summary."""
    transcripts = Shards(job.out) if job.shards else Objects(job.out)
    there = transcripts.names()
    todo: dict[str, tuple[str, str]] = {}
    done: set[str] = set()

    def there_already() -> Iterator[str]:
        for key, version, problem in manifest.entries(job.manifest):
            name = job.object_of(key, version)
            if name in todo or name in done:
                progress.repeated += 1
                continue
            progress.recordings += 1
            if problem is not None:
                done.add(name)
                progress.add(not_done(key, version, problem))
                summary.add(not_done(key, version, problem))
            elif name in there:
                done.add(name)
                yield name
            else:
                todo[name] = (key, version)

    again: dict[str, tuple[str, str]] = {}
    for name, row in store.in_threads(lambda name: (name, transcripts.row(name)), there_already()):
        if job.retry_failed and row["status"] not in TRANSCRIBED:
            again[name] = (row["key"], row["etag"])
        else:
            progress.add(row, before=True)
            summary.add(row)
    transcripts.forget([*again])
    return todo | again


def _with_workers(job: Job) -> Job:
    """The job with what the cluster has filled in."""
    if not ray.is_initialized():
        # Ray warns of the way in which Ray Data starts actors, which nobody can change here.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        # The cluster that the environment names, as in a job that was submitted; none that happens to be there.
        address = os.environ.get("RAY_ADDRESS", "local")
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    gpus = ray.cluster_resources().get("GPU", 0)
    device = job.device or ("cuda" if gpus else "cpu")
    claim = job.gpus if job.gpus is not None else float(device == "cuda")
    machines = sum(node["Alive"] for node in ray.nodes())
    workers = job.workers or max(1, int(gpus / claim) if claim else machines)
    return replace(job, device=device, gpus=claim, workers=workers)


def _transcribe(job: Job, todo: dict[str, tuple[str, str]], progress: Progress, summary: Summary) -> None:
    """Has the workers transcribe it all; what is done is taken out of `todo`."""
    assert job.workers is not None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    # A recording may take hours, and a worker never fails because of one.
    context.execution_no_progress_timeout_s = -1
    context.max_errored_blocks = 0
    # With their machines, workers are lost before they have begun, too.
    context.max_consecutive_actor_init_deaths = WORKERS_LOST
    rows = pa.table(
        [[*(key for key, _ in todo.values())], [*(etag for _, etag in todo.values())], [*todo]], schema=TODO
    )
    most = MOST_IN_A_SHARD if job.shards else MOST_IN_A_TASK
    in_a_task = min(max(len(todo) // (8 * job.jobs * job.workers), 1), most)
    # Each block is a task.
    blocks = [rows.slice(start, in_a_task) for start in range(0, len(todo), in_a_task)]
    tasks = job.jobs + 2
    done = ray.data.from_blocks(blocks).map_batches(
        Worker,
        fn_constructor_args=[job],
        batch_size=in_a_task,
        batch_format="pyarrow",
        # Ray starts a worker that is lost again, and sends it again what it had, as often as need be.
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=job.workers,
            max_tasks_in_flight_per_actor=2 * tasks,
            max_concurrent_calls_per_actor=tasks,
            enable_true_multi_threading=True,
        ),
        num_gpus=job.gpus,
    )
    progress.show()
    batches: Iterable[Any] = done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in batches:
        for row in batch.to_pylist():
            if row["status"] == NO_ENGINE:
                raise ArchiveError(f"a worker cannot begin: {row['message']}")
            if todo.pop(job.object_of(row["key"], row["etag"]), None) is not None:
                progress.add(row)
                summary.add(row)
        progress.show()


class Summary:
    """The file with a line for each recording of the manifest. It is written anew at the end of each run."""

    def __init__(self, out: str) -> None:
        self._uri = f"{out}/{SUMMARY}"
        self._rows: list[Row] = []

    def __enter__(self) -> Summary:
        self._file = tempfile.NamedTemporaryFile(suffix=".parquet")
        self._writer = parquet.ParquetWriter(self._file.name, ROW)
        return self

    def add(self, row: Row) -> None:
        """Writes a line."""
        self._rows.append(row)
        if len(self._rows) == 10_000:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, ROW))
        self._rows = []

    def write(self) -> None:
        """Puts it in the place of the one before."""
        self._flush()
        self._writer.close()
        store.replace(self._uri, Path(self._file.name))

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self._file.close()
