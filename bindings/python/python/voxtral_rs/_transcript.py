"""What was heard in a recording."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Word:
    """A word with its punctuation, and where it was spoken."""

    word: str
    start: float
    """Seconds from the start of the audio: an estimate from the word's length."""
    end: float
    """Seconds from the start of the audio, to about 0.08."""
    logprob: float
    """Mean natural log-probability of the word's tokens."""

    @property
    def probability(self) -> float:
        """Geometric mean of the probabilities of the word's tokens, 0 to 1."""
        return math.exp(min(self.logprob, 0.0))


@dataclass(frozen=True)
class Segment:
    """What was said between two pauses."""

    text: str
    start: float
    """Seconds of audio where the segment before ended."""
    end: float
    """Seconds of audio where the pause after it had lasted long enough, or where the audio ended."""


@dataclass(frozen=True)
class Token:
    """What the model wrote for 80 ms of audio."""

    id: int
    """Index into the model's vocabulary."""
    logprob: float
    """Natural logarithm of the probability that the model gave it."""


@dataclass(frozen=True)
class Damage:
    """Audio that is missing or wrong. Silence stands in for what is missing, so all else keeps its time."""

    at: float
    """Seconds from the start of the audio."""
    lost: float
    """Seconds that are missing; 0 where nothing is, or where nobody can know."""
    what: str


@dataclass(frozen=True)
class Stats:
    """What a transcription took. Times are wall clock; passes that were shared with others count whole."""

    load_ms: float
    """Loading the model; 0 for recordings after the first."""
    encode_ms: float
    """In the encoder."""
    decode_ms: float
    """In the decoder."""
    total_ms: float
    """From opening the recording to its last word."""
    first_text_ms: float | None
    """From opening the recording to its first text, if there was any."""
    positions: int
    """Decoder positions."""
    passes: int
    """Decoder passes."""
    tokens_per_pass: float
    rtf: float
    """`total_ms` over the audio's length: below 1 is faster than real time."""
    peak_rss_mb: float
    """The most memory that the process has held, in units of 10⁶ bytes."""
    device_mb: float
    """The most memory held on the GPU, in units of 10⁶ bytes; 0 on a CPU."""


@dataclass(frozen=True)
class Transcript:
    """A recording as text. It is plain data: it can be pickled and sent to another process."""

    text: str
    words: Sequence[Word]
    segments: Sequence[Segment]
    """The text between pauses, where `endpoint_ms` asked for them; else one segment with all of it."""
    tokens: Sequence[Token] | None
    """All tokens, one for each 80 ms, where `tokens` asked for them."""
    damage: Sequence[Damage]
    """What of the audio is missing or wrong."""
    notices: Sequence[str]
    """What is worth a line and is no damage, such as channels that cancel each other."""
    duration: float
    """Seconds of audio."""
    stats: Stats
    _report: dict[str, Any] = field(repr=False)
    _srt: str = field(repr=False)
    _vtt: str = field(repr=False)

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """What `voxtral --format json` writes, as the program's README describes it: a copy."""
        return copy.deepcopy(self._report)

    def to_srt(self) -> str:
        """Subtitles: SubRip."""
        return self._srt

    def to_vtt(self) -> str:
        """Subtitles: WebVTT."""
        return self._vtt


def transcript_of(report: str, srt: str, vtt: str, notices: list[str]) -> Transcript:
    """Of what the native half gives: `report` is the program's JSON."""
    told: dict[str, Any] = json.loads(report)
    duration = told["audio"]["duration_s"]
    segments = told.get("segments", [{"text": told["text"], "start_s": 0.0, "end_s": duration}])
    tokens = told.get("tokens")
    return Transcript(
        text=told["text"],
        words=[Word(word["text"], word["start_s"], word["end_s"], word["logprob"]) for word in told["words"]],
        segments=[Segment(said["text"], said["start_s"], said["end_s"]) for said in segments if said["text"]],
        tokens=tokens and [Token(**token) for token in tokens],
        damage=[Damage(bad["at_s"], bad["lost_s"], bad["what"]) for bad in told["audio"]["damage"]],
        notices=notices,
        duration=duration,
        stats=Stats(**told["stats"]),
        _report=told,
        _srt=srt,
        _vtt=vtt,
    )
