"""Whatever is killed: all recordings become objects, and the same ones."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Cluster, ended, kill_worker, objects, rows, wait_for, write_clip

# About five seconds of work for two workers.
SLOW = {"engine": "engines:slow", "gpus": 1, "jobs": 2}


@pytest.fixture(scope="module")
def archive(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Recordings, and the transcripts of a run that nobody disturbs."""
    recordings = tmp_path_factory.mktemp("recordings")
    out = tmp_path_factory.mktemp("undisturbed")
    for number in range(24):
        write_clip(recordings / f"{number:02}.wav", number)
    done = cluster.command.run(recordings, out, **SLOW)
    assert done.code == 0, done.err
    return recordings, objects(out)


def kill(cluster: Cluster, kind: str, chance: random.Random, driver: subprocess.Popen[str]) -> None:
    """Kills one of a kind."""
    match kind:
        case "raylet":
            cluster.kill_node(chance.randrange(2))
        case "driver":
            driver.kill()
        case "child":
            chance.choice(wait_for(cluster.engines)).kill()
        case _:
            kill_worker(chance.choice(wait_for(cluster.engines)))


@pytest.mark.parametrize(
    ("kinds", "seed"),
    [
        ("actor child", 1),
        ("raylet actor", 2),
        ("driver", 3),
        ("child raylet driver", 4),
        ("actor driver", 5),
    ],
)
def test_killed_at_some_moment(
    cluster: Cluster, archive: tuple[Path, dict[str, bytes]], tmp_path: Path, kinds: str, seed: int
) -> None:
    recordings, undisturbed = archive
    chance = random.Random(seed)
    driver = cluster.command.start(recordings, tmp_path, **SLOW)
    wait_for(lambda: objects(tmp_path))
    for kind in kinds.split():
        time.sleep(chance.uniform(0, 0.5))
        print(f"{kind} killed with {len(objects(tmp_path))} of 24 objects written")
        assert driver.poll() is None
        kill(cluster, kind, chance, driver)
    done = ended(driver)
    if "driver" not in kinds:
        assert done.code == 0, done.err
        assert objects(tmp_path) == undisturbed
    again = cluster.command.run(recordings, tmp_path, **SLOW)
    assert again.code == 0, again.err
    assert objects(tmp_path) == undisturbed
    assert len(rows(tmp_path)) == 24


def test_ctrl_c_ends_a_run_and_the_summary_says_what_is_left(
    cluster: Cluster, archive: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    driver = cluster.command.start(archive[0], tmp_path, **SLOW)
    wait_for(lambda: len(objects(tmp_path)) > 6)
    driver.send_signal(signal.SIGINT)
    done = ended(driver)
    assert done.code == 130 and "Traceback" not in done.err, done.err
    statuses = [row["status"] for row in rows(tmp_path)]
    assert len(statuses) == 24 and 0 < statuses.count("not_done") < 24
