"""What is in `out`: an object for each transcript, or shards with many."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from voxtral_rs.ray import store
from voxtral_rs.ray.job import ArchiveError, row_of

Row = dict[str, Any]

ROW = pa.schema(
    [
        ("key", pa.string()),
        ("etag", pa.string()),
        ("object", pa.string()),
        ("status", pa.string()),
        ("duration_s", pa.float64()),
        ("message", pa.string()),
    ]
)
"""A line of the summary."""

SUMMARY = "summary.parquet"
"""The file beside the transcripts that has a line for each recording of the manifest."""

SHARD = pa.schema([("name", pa.string()), *ROW, ("text", pa.string()), ("transcript", pa.string())])
"""A row of a shard: the transcript is what the object would be, and `name` what it would be called."""


class Objects:
    """An object for each transcript."""

    def __init__(self, out: str) -> None:
        self._out = out
        self._known: dict[str, Row] = {}

    def names(self) -> set[str]:
        """The names of the transcripts that are there."""
        try:
            summary = parquet.read_table(pa.BufferReader(store.read(f"{self._out}/{SUMMARY}")), schema=ROW)
            self._known = {row["object"]: row for row in summary.to_pylist()}
        except FileNotFoundError:
            pass
        return set(store.transcripts_below(self._out))

    def row(self, name: str) -> Row:
        """The line about one of them. What the last summary does not have is read."""
        return self._known.get(name) or row_of(name, store.read(f"{self._out}/{name}"))

    def forget(self, names: Sequence[str]) -> None:
        """Removes some."""
        if not names:
            return
        # First of all the summary: it is not to tell of those that were removed if this run ends now.
        store.remove(f"{self._out}/{SUMMARY}")
        for _ in store.in_threads(lambda name: store.remove(f"{self._out}/{name}"), names):
            pass


class Shards:
    """Parquet files with many transcripts each, for millions of short recordings."""

    def __init__(self, out: str) -> None:
        self._out = out
        self._rows: dict[str, Row] = {}

    def names(self) -> set[str]:
        """The names of the transcripts that are there."""
        columns = ["name", *ROW.names]

        def read(shard: str) -> list[Row]:
            rows: list[Row] = self._table(shard, columns).to_pylist()
            return rows

        for rows in store.in_threads(read, store.names_in(self._out, "shards", ".parquet")):
            self._rows.update((row.pop("name"), row) for row in rows)
        return set(self._rows)

    def row(self, name: str) -> Row:
        """The line about one of them."""
        return self._rows[name]

    def forget(self, names: Sequence[str]) -> None:
        """Takes some out of their shards."""
        gone = set(names)
        for shard in {self._rows[name]["object"] for name in names}:
            rest = [row for row in self._table(shard).to_pylist() if row["name"] not in gone]
            write_shard(self._out, rest)
            store.remove(f"{self._out}/{shard}")

    def _table(self, shard: str, columns: list[str] | None = None) -> Any:
        return parquet.read_table(pa.BufferReader(store.read(f"{self._out}/{shard}")), columns=columns)


def write_shard(out: str, rows: list[Row]) -> str:
    """Writes rows of `SHARD` into one that is named after what is in it: its name, which becomes their `object`."""
    name = f"shards/{hashlib.sha256(''.join(row['name'] for row in rows).encode()).hexdigest()[:32]}.parquet"
    for row in rows:
        row["object"] = name
    buffer = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, SHARD), buffer, compression="zstd")
    if rows:
        store.create(f"{out}/{name}", buffer.getvalue().to_pybytes())
    return name


def shard_row(name: str, transcript: bytes) -> Row:
    """A row of `SHARD`, but for the shard that it will be in."""
    text = json.loads(transcript).get("text")
    return {"name": name, **row_of("", transcript), "text": text, "transcript": transcript.decode()}


@contextmanager
def lock(out: str) -> Iterator[None]:
    """Keeps other runs out: two that put the same recordings into different shards would write them twice.

    Raises:
        ArchiveError: Another run has it, or was killed and left it.
    """
    uri = f"{out}/lock.json"
    holder = {"host": socket.gethostname(), "pid": os.getpid()}
    if not store.create(uri, json.dumps(holder).encode()):
        raise ArchiveError(f"another run writes here: {store.read(uri).decode()}; if it has ended, remove {uri}")
    try:
        yield
    finally:
        store.remove(uri)
