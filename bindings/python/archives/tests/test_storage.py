"""S3 that does not do what it should: recordings are done later, and never left out."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from conftest import Bucket, Cluster
from proxy import Answer, Behaviour, Proxy


def now_and_then(seed: int) -> Behaviour:
    """One request of five fails, and one is slow."""
    chance = random.Random(seed)
    bad = [(500, "InternalError"), (503, "SlowDown"), 0.5, 0.5, *[None] * 6]
    return lambda method, path: chance.choice(bad)


@pytest.fixture
def archive(bucket: Bucket, recordings: Path) -> Bucket:
    for path in sorted(recordings.iterdir())[:8]:
        bucket.put(f"in/{path.name}", path.read_bytes())
    return bucket


def test_storage_that_fails_now_and_then_costs_time_only(cluster: Cluster, archive: Bucket, proxy: Proxy) -> None:
    proxy.behave(now_and_then(1))
    done = cluster.command.run(f"{archive.uri}/in", f"{archive.uri}/out", gpus=1)
    proxy.behave(None)
    assert done.code == 0, done.err
    assert len(archive.objects("out")) == len(archive.rows("out")) == 8


def no_reading(method: str, path: str) -> Answer | None:
    """Two of the recordings may not even be looked at."""
    return (403, "AccessDenied") if path.split("?")[0].endswith(("03.wav", "05.wav")) else None


def no_writing(method: str, path: str) -> Answer | None:
    """Transcripts may not be written."""
    return (403, "AccessDenied") if method == "PUT" and path.split("?")[0].endswith(".json") else None


def test_what_is_forbidden_is_not_done_and_done_later(cluster: Cluster, archive: Bucket, proxy: Proxy) -> None:
    keys = [f"{archive.uri}/in/{number:02}.wav" for number in range(8)]
    manifest = archive.put("manifest.csv", "\n".join(["key", *keys]).encode())
    for behaviour, undone in ((no_writing, 8), (no_reading, 2)):
        proxy.behave(behaviour)
        done = cluster.command.run(manifest, f"{archive.uri}/out", gpus=1)
        proxy.behave(None)
        assert done.code == 1, done.err
        assert f"{undone} not done" in done.out
        assert len(archive.objects("out")) == 8 - undone
        told = [row["message"] for row in archive.rows("out") if row["status"] == "not_done"]
        assert len(told) == undone and all("Access" in why or "Forbidden" in why for why in told), told
    again = cluster.command.run(manifest, f"{archive.uri}/out", gpus=1)
    assert again.code == 0, again.err
    assert len(archive.objects("out")) == 8


def test_credentials_that_expire_end_a_run_and_the_next_goes_on(
    cluster: Cluster, archive: Bucket, proxy: Proxy
) -> None:
    written = 0

    def expire(method: str, path: str) -> Answer | None:
        nonlocal written
        written += method == "PUT"  # as many transcripts
        return (403, "ExpiredToken") if written > 3 else None

    proxy.behave(expire)
    done = cluster.command.run(f"{archive.uri}/in", f"{archive.uri}/out", gpus=1)
    proxy.behave(None)
    assert done.code == 1
    assert "xpired" in done.err and "Traceback" not in done.err
    first = archive.objects("out")
    assert 0 < len(first) < 8
    again = cluster.command.run(f"{archive.uri}/in", f"{archive.uri}/out", gpus=1)
    assert again.code == 0, again.err
    assert len(archive.objects("out")) == 8 and archive.objects("out").items() >= first.items()
