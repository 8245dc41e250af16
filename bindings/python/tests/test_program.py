"""The package hears what the program hears: the same words, times and log-probabilities."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import DIGITS, ROOT, Program

from voxtral_rs import Model

# More recordings of digits, where they are at hand.
MORE = Path(os.environ.get("VOXTRAL_RECORDINGS", ROOT.parent / "shared" / "digits" / "eval"))
RECORDINGS = [DIGITS, *sorted(MORE.glob("*.wav"))[:8]]
if len(RECORDINGS) == 1:
    print(f"no more recordings than one: there are none in {MORE}; VOXTRAL_RECORDINGS names another folder")


def but_for_figures(report: dict[str, Any]) -> dict[str, Any]:
    del report["stats"]
    return report


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_a_report_is_that_of_the_program(model: Model, program: Program, recording: Path) -> None:
    report = model.transcribe(recording, tokens=True).to_dict()
    assert but_for_figures(report) == but_for_figures(program.report(recording))


def test_options_are_those_of_the_program(model: Model, program: Program) -> None:
    transcript = model.transcribe(DIGITS, tokens=True, delay_ms=160, endpoint_ms=300)
    report = program.report(DIGITS, "--delay", "160", "--endpoint", "300")
    assert but_for_figures(transcript.to_dict()) == but_for_figures(report)
    assert [said.text for said in transcript.segments] == [said["text"] for said in report["segments"]]
    assert len(transcript.segments) > 1


def test_subtitles_are_those_of_the_program(model: Model, program: Program) -> None:
    transcript = model.transcribe(DIGITS)
    assert transcript.to_srt() == program.writes(DIGITS, "--format", "srt")
    assert transcript.to_vtt() == program.writes(DIGITS, "--format", "vtt")


def test_attributes_say_what_the_report_says(model: Model) -> None:
    transcript = model.transcribe(DIGITS, tokens=True)
    report = transcript.to_dict()
    assert (str(transcript), transcript.text, transcript.duration) == (report["text"], report["text"], 8.195)
    first, word = transcript.words[0], report["words"][0]
    assert (first.word, first.start, first.end, first.logprob) == tuple(
        word[name] for name in ("text", "start_s", "end_s", "logprob")
    )
    assert first.probability == pytest.approx(1.0, abs=1e-3)
    assert transcript.tokens is not None
    assert [token.id for token in transcript.tokens] == [token["id"] for token in report["tokens"]]
    assert [(said.text, said.start, said.end) for said in transcript.segments] == [(report["text"], 0.0, 8.195)]
    assert transcript.stats.total_ms == report["stats"]["total_ms"] > 0
    assert model.transcribe(DIGITS).tokens is None
    report["text"] = "changed"
    assert transcript.to_dict()["text"] == transcript.text
