"""Whatever is killed: all recordings become objects, and the same ones."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Cluster, ended, objects, rows, wait_for

SLOW = {"engine": "engines:slow", "gpus": 1, "jobs": 2}


def victim(cluster: Cluster, kind: str, chance: random.Random, driver: subprocess.Popen[str]) -> None:
    """Kills one of a kind."""
    match kind:
        case "raylet":
            cluster.kill_node(chance.randrange(2))
        case "driver":
            driver.kill()
        case _:
            engine = chance.choice(wait_for(cluster.engines))
            (engine if kind == "child" else engine.parent()).kill()


@pytest.mark.parametrize("kinds", [["actor", "child"], ["raylet", "actor"], ["driver"], ["child", "raylet", "driver"]], ids="-".join)
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_some_moment(
    cluster: Cluster, recordings: Path, tmp_path: Path, kinds: list[str], seed: int
) -> None:
    assert cluster.command.run(recordings, tmp_path / "undisturbed", **SLOW).code == 0
    out = tmp_path / "out"
    chance = random.Random(f"{seed}{kinds}")
    driver = cluster.command.start(recordings, out, **SLOW)
    wait_for(lambda: objects(out))
    for kind in kinds:
        time.sleep(chance.uniform(0, 0.5))
        victim(cluster, kind, chance, driver)
    done = ended(driver)
    assert done.code == (-signal.SIGKILL if "driver" in kinds else 0), done.err
    again = cluster.command.run(recordings, out, **SLOW)
    assert again.code == 0, again.err
    assert objects(out) == objects(tmp_path / "undisturbed")
    assert len(rows(out)) == 24
