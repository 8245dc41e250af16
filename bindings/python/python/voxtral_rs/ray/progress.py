"""How far a run is, for people."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from voxtral_rs.ray.job import DONE, NOT_DONE, TRANSCRIBED

# Seconds between lines; a line on a terminal is written over.
EVERY_S = 10.0
EVERY_S_ON_A_TERMINAL = 0.5


@dataclass
class Progress:
    """What a run has done, and what there was before."""

    recordings: int = 0
    """Of the manifest, each once."""
    repeated: int = 0
    """Rows of the manifest that name a recording again."""
    before: int = 0
    """Recordings that earlier runs have done."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Of all recordings so far."""
    audio_s: float = 0.0
    """Seconds of audio that this run has transcribed."""
    worker_s: float = 0.0
    """Seconds that workers were there."""
    began: float = field(default_factory=time.monotonic)
    _shown: float = 0.0

    def add(self, row: dict[str, Any], before: bool = False) -> None:
        """A recording that is done."""
        self.statuses[row["status"]] += 1
        if before:
            self.before += 1
        else:
            if row["status"] in TRANSCRIBED:
                self.audio_s += row["duration_s"]
            self.worker_s += row.get("worker_s", 0.0)

    def show(self, last: bool = False) -> None:
        """Writes a line to standard error, if it is time for one."""
        terminal = sys.stderr.isatty()
        now = time.monotonic()
        if last or now - self._shown > (EVERY_S_ON_A_TERMINAL if terminal else EVERY_S):
            self._shown = now
            # On a terminal, each line is written over the one before.
            before, after = ("\r", "\x1b[K" + "\n" * last) if terminal else ("", "\n")
            print(before + self.line(), end=after, file=sys.stderr, flush=True)

    def line(self) -> str:
        """One line."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        parts = [
            f"{self.statuses.total() - self.statuses[NOT_DONE]:,} of {self.recordings:,} recordings",
            f"{self.audio_s / 3600:,.2f} h of audio",
            f"{self.audio_s / seconds:,.0f} × real time",
        ]
        return ", ".join([*parts, *self.failures()])

    def failures(self) -> list[str]:
        """How many are not well, by their kind."""
        bad = sorted(item for item in self.statuses.items() if item[0] != DONE)
        return [f"{number:,} {status.replace('_', ' ')}" for status, number in bad]

    def exit_code(self) -> int:
        """As the program `voxtral` has them."""
        if self.statuses[NOT_DONE]:
            return 1
        return 4 if self.failures() else 0

    def summary(self) -> str:
        """What it comes to, in a few lines."""
        seconds = time.monotonic() - self.began
        lines = [
            ", ".join([f"{self.recordings:,} recordings: {self.statuses[DONE]:,} transcribed", *self.failures()]),
            f"{self.before:,} of them by earlier runs" if self.before else "",
            f"{self.repeated:,} rows of the manifest name a recording again" if self.repeated else "",
        ]
        if self.audio_s:
            lines.append(
                f"{self.audio_s / 3600:,.2f} h of audio in {seconds / 3600:,.2f} h, "
                f"{self.audio_s / seconds:,.0f} × real time; "
                f"{self.audio_s / max(self.worker_s, 1e-9):,.0f} h for each hour of a worker"
            )
        return "\n".join(filter(None, lines))
