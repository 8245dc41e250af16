"""What there is to transcribe."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow.parquet as parquet

from voxtral_rs.ray import store
from voxtral_rs.ray.job import ArchiveError

# Names that sound and videos usually end with, as the program has them.
ENDINGS = frozenset(
    "3ga 3gp aac ac3 aif aifc aiff amr asf au avi caf dts eac3 flac flv m4a m4b m4v mka mkv mov mp1 mp2 mp3 mp4 mpeg "
    "mpg mts oga ogg ogv opus spx ts voc vob w64 wav wave webm wma wmv".split()
)

Entry = tuple[str, str, str | None]
"""The path or URI of a recording; its version, empty where there is no such file; why that cannot be known now."""


def entries(manifest: str) -> Iterator[Entry]:
    """The recordings of a manifest, in its order, or those in a folder or bucket.

    Raises:
        ArchiveError: It is not a manifest.
        StorageError, FileNotFoundError: It cannot be read.
    """
    ending = manifest.rsplit(".", 1)[-1].lower()
    readers = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}
    if ending not in readers:
        yield from _listed(manifest)
        return
    fs, path = store.file_system(manifest)
    with fs.open(path, "rb") as file:
        try:
            yield from _versioned(_keys(readers[ending](file), manifest))
        except (ValueError, csv.Error) as error:
            raise ArchiveError(f"{manifest}: {error}") from error


def _listed(folder: str) -> Iterator[Entry]:
    found = False
    for key, version in store.files_below(folder):
        if key.rsplit(".", 1)[-1].lower() in ENDINGS:
            found = True
            yield key, version, None
    if not found:
        raise ArchiveError(f"{folder}: no recordings here, and not a manifest that ends with .parquet, .csv or .jsonl")


def _keys(rows: Iterable[dict[str, Any]], manifest: str) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("key"), str) or not row["key"]:
            raise ArchiveError(f"{manifest}: row {number} has no `key`, the path or URI of a recording")
        yield store.absolute(row["key"]), str(row.get("etag") or "")


def _versioned(keys: Iterator[tuple[str, str]]) -> Iterator[Entry]:
    """Asks the store where the manifest does not say the version."""

    def known(entry: tuple[str, str]) -> Entry:
        key, version = entry
        try:
            return key, version or store.version_of(key), None
        except store.StorageError as error:
            return key, "", str(error)

    return store.in_threads(known, keys)


def _parquet(file: Any) -> Iterator[dict[str, Any]]:
    table = parquet.ParquetFile(file)
    columns = [name for name in ("key", "etag") if name in table.schema_arrow.names]
    for batch in table.iter_batches(columns=columns):
        yield from batch.to_pylist()


def _csv(file: Any) -> Iterator[dict[str, Any]]:
    yield from csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""))


def _jsonl(file: Any) -> Iterator[dict[str, Any]]:
    for line in file:
        if line.strip():
            row = json.loads(line)
            yield row if isinstance(row, dict) else {}
