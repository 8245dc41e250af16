"""What is written is there whole and once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Bucket
from proxy import Proxy

from voxtral_rs.ray import store


@pytest.fixture(params=["folder", "bucket", "gcs", "azure"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path)
    made: Bucket | str = request.getfixturevalue(request.param)
    # Of each test its own.
    return made.uri if isinstance(made, Bucket) else f"{made}/{tmp_path.name}"


def test_of_many_writers_one_wins(place: str) -> None:
    uri = f"{place}/ab/abc.json"
    with pytest.raises(FileNotFoundError):
        store.read(uri)
    with ThreadPoolExecutor(8) as pool:
        wrote = list(pool.map(lambda number: store.create(uri, b"%d" % number * 100_000), range(8)))
    assert wrote.count(True) == 1
    assert store.read(uri) == b"%d" % wrote.index(True) * 100_000
    assert list(store.transcripts_below(place)) == ["ab/abc.json"]


def test_a_recording_is_at_hand_while_it_is_used(place: str, tmp_path: Path) -> None:
    store.create(f"{place}/talk.wav", b"sound")
    descriptors = len(os.listdir("/proc/self/fd"))
    with store.at_hand(f"{place}/talk.wav") as path:
        assert Path(path).read_bytes() == b"sound"
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    with pytest.raises(FileNotFoundError), store.at_hand(f"{place}/none.wav"):
        pass


def test_versions_change_with_the_file(place: str) -> None:
    uri = f"{place}/talk.wav"
    assert store.version_of(uri) == ""
    store.create(uri, b"one")
    first = store.version_of(uri)
    assert dict(store.files_below(place)) == {uri: first}
    store.remove(uri)
    store.create(uri, b"another")
    assert store.version_of(uri) not in ("", first)


def test_a_file_is_replaced_whole(place: str, tmp_path: Path) -> None:
    new = tmp_path / "new"
    for content in (b"one", b"two"):
        new.write_bytes(content)
        store.replace(f"{place}/summary.parquet", new)
        assert store.read(f"{place}/summary.parquet") == content
    assert list(store.transcripts_below(place)) == []


def test_a_store_may_refuse_to_overwrite_without_saying_why(bucket: Bucket, proxy: Proxy) -> None:
    assert store.create(f"{bucket.uri}/a.json", b"one")
    proxy.behave(lambda method, path: (412, "PreconditionFailed") if method == "PUT" else None)
    assert not store.create(f"{bucket.uri}/a.json", b"two")
