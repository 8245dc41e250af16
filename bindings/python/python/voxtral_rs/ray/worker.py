"""What runs on each GPU: an actor of Ray that turns rows of the manifest into objects, and never fails itself."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from voxtral_rs.ray import store
from voxtral_rs.ray.engine import Engine, EngineError
from voxtral_rs.ray.job import NOT_DONE, Job, not_done, row_of
from voxtral_rs.ray.transcripts import ROW, Row, shard_row, write_shard

NO_ENGINE = "no_engine"
"""The status of a row whose worker has no engine: the run is over."""


class Worker:
    """Takes rows with `key`, `etag` and the object's `name`, from several threads at a time, and gives lines of
    the summary, with the seconds that it was there for them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._engine = Engine(job)
        # While some are transcribed, as many others are fetched and written.
        self._pool = ThreadPoolExecutor(2 * job.jobs)
        self._told = time.monotonic()

    def __call__(self, rows: Any) -> Any:
        done = list(self._pool.map(lambda row: self._row(**row), rows.to_pylist()))
        if self._job.shards:
            done = self._sharded(done)
        told, self._told = self._told, time.monotonic()
        seconds = [self._told - told] + [0.0] * (len(done) - 1)
        return pa.Table.from_pylist(done, ROW).append_column("worker_s", pa.array(seconds, pa.float64()))

    def _row(self, key: str, etag: str, name: str) -> Row:
        """A line of the summary; of a shard where there are shards."""
        try:
            if self._job.shards:
                return shard_row(name, self._job.transcript(key, etag, self._heard(key)))
            return row_of(name, self._object(key, etag, f"{self._job.out}/{name}"))
        except EngineError as error:
            return not_done(key, etag, str(error)) | {"status": NO_ENGINE}
        except NotDone as error:
            return not_done(key, etag, str(error))
        except Exception as error:
            return not_done(key, etag, f"{type(error).__name__}: {error}")

    def _object(self, key: str, etag: str, uri: str) -> bytes:
        """What is in the object, which another worker may have written before."""
        try:
            return store.read(uri)
        except FileNotFoundError:
            pass
        transcript = self._job.transcript(key, etag, self._heard(key))
        return transcript if store.create(uri, transcript) else store.read(uri)

    def _sharded(self, rows: list[Row]) -> list[Row]:
        """Writes what is done into a shard."""
        done = [row for row in rows if "transcript" in row]
        try:
            write_shard(self._job.out, done)
            return rows
        except Exception as error:
            undone = [not_done(row["key"], row["etag"], f"{type(error).__name__}: {error}") for row in done]
            return undone + [row for row in rows if "transcript" not in row]

    def _heard(self, key: str) -> dict[str, Any]:
        try:
            with store.at_hand(key) as path:
                heard = self._engine.transcribe(path)
        except (FileNotFoundError, IsADirectoryError):
            return {"status": "missing", "message": "there is no such file"}
        if heard["status"] == NOT_DONE:
            raise NotDone(heard["message"])
        return heard


class NotDone(Exception):
    """A recording that was there and could not be read."""
