"""What a manifest may be, and what is told of one that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from voxtral_rs.ray.job import ArchiveError, Job
from voxtral_rs.ray.manifest import entries

ROWS = [
    {"key": "/talks/a, b.wav", "etag": "1"},
    {"key": "/talks/ü.wav", "etag": "2"},
    {"key": "s3://talks/c", "etag": "3"},
]
EXPECTED = [("/talks/a, b.wav", "1", None), ("/talks/ü.wav", "2", None), ("s3://talks/c", "3", None)]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_three_forms_say_the_same(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"talks.{ending}"
    match ending:
        case "csv":
            path.write_text('key,speaker,etag\n"/talks/a, b.wav",x,1\n/talks/ü.wav,y,2\ns3://talks/c,z,3\n')
        case "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        case _:
            parquet.write_table(pa.Table.from_pylist(ROWS), path)
    assert list(entries(str(path))) == EXPECTED


def test_the_version_of_a_file_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.wav").write_bytes(b"12345")
    Path("talks.csv").write_text("key\na.wav\nb.wav\n")
    (key, version, _), missing = entries("talks.csv")
    assert key == str(tmp_path / "a.wav") and version.startswith("5-")
    assert missing == (str(tmp_path / "b.wav"), "", None)


def test_a_folder_is_its_recordings(tmp_path: Path) -> None:
    for name in ("a.wav", "deep/er/b.MP3", "notes.txt", ".hidden.wav", ".hidden/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [key for key, *_ in entries(str(tmp_path))] == [f"{tmp_path}/a.wav", f"{tmp_path}/deep/er/b.MP3"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("talks.csv", "path\na.wav\n", "row 1 has no `key`"),
        ("talks.csv", "key,etag\n/a.wav,1\n,2\n", "row 2 has no `key`"),
        ("talks.jsonl", '{"key": 7}\n', "row 1 has no `key`"),
        ("talks.jsonl", "[1]\n", "row 1 has no `key`"),
        ("talks.jsonl", "not JSON\n", "Expecting value"),
        ("talks.parquet", "PAR0", "(?i)parquet"),
        ("folder/talks.txt", "", "no recordings here"),
    ],
)
def test_what_is_no_manifest_is_told(tmp_path: Path, name: str, content: str, says: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(ArchiveError, match=says):
        list(entries(str(path.parent if name.startswith("folder") else path)))


def test_names_change_with_all_that_changes_a_transcript_and_nothing_else() -> None:
    job = Job("m", "o", model="a")
    others = [Job("m", "o", model="b"), Job("m", "o", model="a", delay_ms=160), Job("m", "o", model="a", tokens=True)]
    names = [job.object_of("k", "e"), job.object_of("k", "f"), job.object_of("l", "e")]
    names += [other.object_of("k", "e") for other in others]
    assert len(set(names)) == len(names)
    assert Job("x", "y", model="a", jobs=1, deadline_s=1, device="cuda").object_of("k", "e") == names[0]
    assert all(name[:2] == name[3:5] and len(name) == len("ab/") + 32 + len(".json") for name in names)
