"""What an archive's run is asked for, and what it says of a recording."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

DONE = "done"
"""All of it is transcribed."""

TRANSCRIBED = frozenset({DONE, "damaged"})
"""There is a text; of a damaged recording, that of the rest."""

NOT_DONE = "not_done"
"""There is no object: storage failed, or the run ended. The next run does it again. All else is an object."""


class ArchiveError(Exception):
    """Why a run cannot go on: a sentence for people."""


@dataclass(frozen=True)
class Job:
    """A run over an archive."""

    manifest: str
    """What to transcribe: a Parquet, CSV or JSONL file with a column `key`, or a folder or bucket."""
    out: str
    """The folder or bucket that transcripts go to."""
    model: str
    """Any that `Model` takes, found on every worker."""
    delay_ms: int | None = None
    endpoint_ms: int | None = None
    channel: int | None = None
    tokens: bool = False
    device: str | None = None
    """"cuda", a GPU for each worker, or "cpu", a machine for each; by what the cluster has if none."""
    workers: int | None = None
    """The most workers; as many as there is room for if none."""
    jobs: int = 16
    """Recordings at a time in each worker."""
    deadline_s: float = 3600
    """Seconds that a recording may take."""
    memory_mb: int = 4000
    """10⁶ bytes of main memory that a recording may take."""
    shards: bool = False
    """Parquet files with many transcripts each, instead of an object for each."""
    retry_failed: bool = False
    """Do again what an earlier run could not transcribe."""
    engine: str = "voxtral_rs.ray.child:voxtral"
    """What transcribes, as module:function."""
    gpus: float | None = None
    """GPUs that a worker claims; 1 for "cuda" and 0 for "cpu" if none."""

    def options(self) -> dict[str, Any]:
        """What changes a transcript."""
        return {
            "delay_ms": self.delay_ms,
            "endpoint_ms": self.endpoint_ms,
            "channel": self.channel,
            "tokens": self.tokens,
        }

    def object_of(self, key: str, etag: str) -> str:
        """The name of a transcript below `out`: another file, model or option is another name."""
        digest = hashlib.sha256(canonical([key, etag, self.model, self.options()])).hexdigest()[:32]
        return f"{digest[:2]}/{digest}.json"

    def transcript(self, key: str, etag: str, heard: dict[str, Any]) -> bytes:
        """The object: no time and no machine is in it, so that every run makes the same one."""
        about = {"recording": {"key": key, "etag": etag}, "model": self.model, "options": self.options()}
        return canonical({**about, **heard}) + b"\n"


def canonical(value: object) -> bytes:
    """JSON with one way to write it."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def row_of(name: str, transcript: bytes) -> dict[str, Any]:
    """The line of the summary about a transcript."""
    told: dict[str, Any] = json.loads(transcript)
    return {
        "key": told["recording"]["key"],
        "etag": told["recording"]["etag"],
        "object": name,
        "status": told["status"],
        "duration_s": told.get("duration_s", 0.0),
        "message": told.get("message", ""),
    }


def not_done(key: str, etag: str, message: str) -> dict[str, Any]:
    """The line about a recording that has no object yet."""
    return {"key": key, "etag": etag, "object": "", "status": NOT_DONE, "duration_s": 0.0, "message": message}
