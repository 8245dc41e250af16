"""Many transcripts in each file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from conftest import Cluster, ended, kill_worker, rows, statuses, wait_for

SHARDS = {"shards": True, "gpus": 1, "jobs": 2}


def shard_rows(out: Path) -> dict[str, Any]:
    found = [row for path in out.glob("shards/*.parquet") for row in parquet.read_table(path).to_pylist()]
    by_key = {row["key"]: row for row in found}
    assert len(by_key) == len(found)
    return by_key


def test_shards_hold_what_objects_would(cluster: Cluster, recordings: Path, tmp_path: Path) -> None:
    (recordings / "noise.wav").write_bytes(bytes(range(256)))
    assert cluster.command.run(recordings, tmp_path / "objects", gpus=1).code == 4
    out = tmp_path / "out"
    done = cluster.command.run(recordings, out, **SHARDS)
    assert done.code == 4, done.err
    told = shard_rows(out)
    assert len(told) == 25 and not (out / "lock.json").exists()
    for row in told.values():
        assert (tmp_path / "objects" / row["name"]).read_bytes() == row["transcript"].encode()
    assert {row["object"] for row in rows(out)} == {str(path.relative_to(out)) for path in out.glob("shards/*")}
    again = cluster.command.run(recordings, out, shards=True, engine="engines:refuses")
    assert again.code == 4 and "25 of them by earlier runs" in again.out, again.err
    # The version of the file has not changed, but whoever asks gets it again.
    done = cluster.command.run(recordings, out, "--retry", "failed", **SHARDS)
    assert done.code == 4 and shard_rows(out) == told, done.err
    assert statuses(out)["noise.wav"] == "unreadable"


def test_killed_drivers_and_workers_leave_nothing_out(cluster: Cluster, recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    driver = cluster.command.start(recordings, out, **SHARDS, engine="engines:slow")
    wait_for(lambda: list(out.glob("shards/*.parquet")))
    locked = cluster.command.run(recordings, out, **SHARDS)
    assert locked.code == 1 and "another run writes here" in locked.err and "Traceback" not in locked.err
    kill_worker(cluster.engines()[0])
    driver.kill()
    ended(driver)
    (out / "lock.json").unlink()
    done = cluster.command.run(recordings, out, **SHARDS)
    assert done.code == 0, done.err
    assert len(shard_rows(out)) == len(rows(out)) == 24
