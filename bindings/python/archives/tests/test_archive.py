"""Runs over archives on a cluster, undisturbed: statuses, repetition, changes, size."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path

from conftest import Bucket, Cluster, ended, objects, rows, statuses, write_clip

TROUBLE = {"engine": "engines:trouble", "gpus": 1}


def test_a_folder_is_transcribed_and_a_second_run_does_nothing(
    cluster: Cluster, recordings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = cluster.command.run(recordings, out, gpus=1)
    assert done.code == 0, done.err
    assert "24 recordings: 24 transcribed" in done.out
    first = objects(out)
    assert len(first) == 24
    told = json.loads(next(iter(first.values())))
    assert told["status"] == "done" and told["model"] == "digits" and told["words"]
    assert {row["key"] for row in rows(out)} == {str(path) for path in recordings.iterdir()}
    assert all((out / row["object"]).exists() for row in rows(out))
    again = cluster.command.run(recordings, out, engine="engines:refuses")
    assert again.code == 0, again.err
    assert "24 of them by earlier runs" in again.out
    assert objects(out) == first and len(rows(out)) == 24


def test_every_kind_of_trouble_has_a_status_and_costs_no_neighbour(
    cluster: Cluster, recordings: Path, tmp_path: Path
) -> None:
    undisturbed = cluster.command.run(recordings, tmp_path / "undisturbed", **TROUBLE)
    assert undisturbed.code == 0, undisturbed.err
    good = objects(tmp_path / "undisturbed")
    (recordings / "empty.wav").write_bytes(b"")
    with wave.open(str(recordings / "silent.wav"), "wb") as none:
        none.setparams((1, 2, 16_000, 0, "NONE", ""))
    (recordings / "noise.mp3").write_bytes(bytes(range(256)) * 64)
    cut = write_clip(recordings / "cut.wav", 3).read_bytes()
    (recordings / "cut.wav").write_bytes(cut[: len(cut) // 2])
    for name in ("kill", "hang", "eat "):
        (recordings / f"{name.strip()}.wav").write_bytes(name.upper().encode())
    manifest = tmp_path / "manifest.csv"
    keys = [*sorted(recordings.iterdir()), recordings / "missing.wav"]
    manifest.write_text("key\n" + "".join(f"{key}\n" for key in keys))
    out = tmp_path / "out"
    limits = ["--deadline", "5", "--memory", "200", "--jobs", "4"]
    done = cluster.command.run(manifest, out, *limits, **TROUBLE)
    assert done.code == 4, done.err
    bad = {name: status for name, status in statuses(out).items() if status != "done"}
    assert bad == {
        "empty.wav": "empty",
        "silent.wav": "empty",
        "noise.mp3": "unreadable",
        "cut.wav": "damaged",
        "kill.wav": "crashed",
        "hang.wav": "timeout",
        "eat.wav": "out_of_memory",
        "missing.wav": "missing",
    }
    assert len(objects(out)) == len(keys)
    assert {name: content for name, content in objects(out).items() if name in good} == good
    # What failed stays, until it is asked for.
    assert cluster.command.run(manifest, out, engine="engines:refuses").code == 4
    shutil.copy(recordings / "00.wav", recordings / "missing.wav")
    done = cluster.command.run(manifest, out, "--retry", "failed", *limits, **TROUBLE)
    assert done.code == 4 and statuses(out)["missing.wav"] == "done", done.err


def test_repeated_rows_are_one_recording(cluster: Cluster, recordings: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    keys = sorted(recordings.iterdir())[:4]
    manifest.write_text("".join(json.dumps({"key": str(key)}) + "\n" for key in keys * 3))
    done = cluster.command.run(manifest, tmp_path / "out", gpus=1)
    assert done.code == 0, done.err
    assert "4 recordings: 4 transcribed" in done.out and "8 rows" in done.out
    assert len(objects(tmp_path / "out")) == len(rows(tmp_path / "out")) == 4


def test_two_drivers_at_once_write_everything_once(cluster: Cluster, bucket: Bucket, recordings: Path) -> None:
    for path in recordings.iterdir():
        bucket.put(f"in/{path.name}", path.read_bytes())
    flags = [f"{bucket.uri}/in", f"{bucket.uri}/out"]
    job = {"engine": "engines:slow", "gpus": 0.5, "workers": 2}
    both = [cluster.command.start(*flags, **job) for _ in range(2)]
    for done in map(ended, both):
        assert done.code == 0, done.err
    assert len(bucket.objects("out")) == len(bucket.rows("out")) == 24


def test_what_changed_is_done_again_and_nothing_else(cluster: Cluster, bucket: Bucket, recordings: Path) -> None:
    flags = [f"{bucket.uri}/in", f"{bucket.uri}/out"]
    for number in range(6):
        bucket.put(f"in/{number}.wav", (recordings / f"{number:02}.wav").read_bytes())
    assert cluster.command.run(*flags, gpus=1).code == 0
    first = bucket.objects("out")
    assert len(first) == 6
    bucket.put("in/3.wav", (recordings / "07.wav").read_bytes())
    assert cluster.command.run(*flags, gpus=1).code == 0
    second = bucket.objects("out")
    assert len(second) == 7 and second.items() >= first.items()
    assert cluster.command.run(*flags, engine="engines:refuses").code == 0
    assert cluster.command.run(*flags, "--delay", "160", gpus=1).code == 0
    third = bucket.objects("out")
    assert len(third) == 13 and third.items() >= second.items()


def test_a_worker_without_an_engine_ends_the_run_and_says_why(
    cluster: Cluster, recordings: Path, tmp_path: Path
) -> None:
    done = cluster.command.run(recordings, tmp_path / "out", "--delay", "100", gpus=1)
    assert done.code == 1
    assert "voxtral-archive: a worker cannot begin: a delay of 100 ms is not one the model knows" in done.err
    assert "Traceback" not in done.err
    assert objects(tmp_path / "out") == {}
    assert {row["status"] for row in rows(tmp_path / "out")} == {"not_done"}


def test_ten_thousand_recordings_take_little_memory(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(b"x" * 1000)
    manifest = tmp_path / "manifest.csv"

    def peak(recordings: int) -> float:
        manifest.write_text("key,etag\n" + "".join(f"{path},{number}\n" for number in range(recordings)))
        out = tmp_path / f"out{recordings}"
        done = cluster.command.run(manifest, out, engine="engines:sizes", gpus=1)
        assert done.code == 0, done.err
        assert len(objects(out)) == len(rows(out)) == recordings
        print(done.out)
        return float(done.err.rsplit("peak MB ", 1)[1])

    few, many = peak(100), peak(10_000)
    print(f"the driver's memory: {few:.0f} MB for 100 recordings, {many:.0f} MB for 10,000")
    assert many - few < 100
