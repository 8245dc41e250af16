"""Archives of any size, on Ray Data: each recording of a manifest becomes one object, whatever fails on the way.

>>> from voxtral_rs.ray import Job, run
>>> progress = run(Job("s3://talks/2026", "s3://transcripts", model="/models/voxtral"))  # doctest: +SKIP

The command `voxtral-archive` does the same. Both need `pip install voxtral-rs[ray]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxtral_rs.ray.job import ArchiveError, Job

if TYPE_CHECKING:
    from voxtral_rs.ray.progress import Progress

__all__ = ["ArchiveError", "Job", "run"]


def run(job: Job) -> Progress:
    """Transcribes what a job's manifest lists and its `out` does not have yet, on Ray's cluster or on this machine.

    Raises:
        ArchiveError: It cannot begin or go on. What is done is done: the next run goes on from there.
    """
    # The engine's process needs nothing of Ray.
    from voxtral_rs.ray.archive import run

    return run(job)
