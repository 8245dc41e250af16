"""A folder on this machine alone, with nothing started before, and a worker that is killed."""

from __future__ import annotations

from pathlib import Path

from conftest import Command, ended, engines_below, kill_worker, objects, rows, wait_for


def test_a_folder_with_a_killed_worker(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (recordings / "noise.mp3").write_bytes(bytes(range(256)) * 64)
    driver = Command().start(recordings, out, engine="engines:slow", jobs=2)
    wait_for(lambda: objects(out))
    kill_worker(engines_below(driver.pid)[0])
    done = ended(driver)
    assert done.code == 4, done.err
    assert "25 recordings: 24 transcribed, 1 unreadable" in done.out
    assert len(objects(out)) == len(rows(out)) == 25
    first = objects(out)
    # All is there: Ray is not even started.
    again = Command().run(recordings, out, engine="engines:refuses")
    assert again.code == 4 and objects(out) == first, again.err
    # What is no manifest changes nothing.
    none = Command().run(tmp_path / "none.csv", out)
    assert none.code == 1 and "none.csv" in none.err and "Traceback" not in none.err
    assert len(rows(out)) == 25
