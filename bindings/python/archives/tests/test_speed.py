"""Two workers do in half the time what one does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Cluster
from proxy import Proxy


@pytest.fixture
def cluster(proxy: Proxy) -> Iterator[Cluster]:
    """One of which nothing was killed."""
    cluster = Cluster(2)
    yield cluster
    cluster.close()


def test_two_workers_are_nearly_twice_as_fast(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(b"x")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("key,etag\n" + "".join(f"{path},{number}\n" for number in range(40)))

    def seconds(workers: int) -> float:
        """From the first to the last object: it takes Ray a while to begin."""
        out = tmp_path / f"out{workers}"
        done = cluster.command.run(manifest, out, "--workers", str(workers), engine="engines:sleepy", gpus=1, jobs=1)
        assert done.code == 0, done.err
        times = sorted(os.stat(made).st_mtime for made in out.glob("??/*.json"))
        assert len(times) == 40
        return times[-1] - times[0]

    one, two = seconds(1), seconds(2)
    print(f"one worker: {one:.1f} s, two: {two:.1f} s, {one / two:.2f} times as fast")
    assert one / two >= 1.6
