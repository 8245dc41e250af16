"""Recordings in every form that people have them in."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import DIGITS, RATE, WORDS

from voxtral_rs import AudioError, Model, Transcript

Samples = npt.NDArray[np.int16]


@pytest.fixture(scope="module")
def expected(model: Model) -> Transcript:
    return model.transcribe(DIGITS, tokens=True)


# The same sound, to the last bit.
EXACT: dict[str, Callable[[Samples], npt.NDArray[Any]]] = {
    "int16": lambda x: x,
    "int32": lambda x: x.astype(np.int32) << 16,
    "float32": lambda x: x.astype(np.float32) / 32768,
    "float64": lambda x: x / 32768,
    "big-endian": lambda x: x.astype(">i2"),
    "big-endian float64": lambda x: (x / 32768).astype(">f8"),
    "strided": lambda x: np.repeat(x, 3)[::3],
    "backwards in memory": lambda x: x[::-1].copy()[::-1],
    "one channel": lambda x: x[:, np.newaxis],
    "stereo": lambda x: np.stack([x, x], axis=1),
    "stereo, column by column": lambda x: np.asfortranarray(np.stack([x, x], axis=1)),
    "a column of stereo": lambda x: np.stack([x, 0 * x], axis=1)[:, 0],
    "a transposed view": lambda x: np.stack([x, x, x, x]).T,
    "read-only": lambda x: np.frombuffer(x.tobytes(), np.int16),
}


@pytest.mark.parametrize("form", EXACT)
def test_samples_of_any_type_and_layout_are_the_recording(
    model: Model, samples: Samples, expected: Transcript, form: str
) -> None:
    heard = model.transcribe(EXACT[form](samples), RATE, tokens=True)
    assert (heard.words, heard.tokens, heard.duration) == (expected.words, expected.tokens, expected.duration)


@pytest.mark.parametrize("form", ["uint8", "float16"])
def test_coarse_samples_say_the_same(model: Model, samples: Samples, form: str) -> None:
    coarse: dict[str, npt.NDArray[Any]] = {
        "uint8": ((samples.astype(np.int32) >> 8) + 128).astype(np.uint8),
        "float16": (samples / 32768).astype(np.float16),
    }
    assert model.transcribe(coarse[form], RATE).text == WORDS


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_any_rate_keeps_times(model: Model, samples: Samples, rate: int) -> None:
    at = np.arange(len(samples) * rate // RATE) * RATE / rate
    heard = model.transcribe(np.interp(at, np.arange(len(samples)), samples / 32768), sample_rate=rate)
    assert heard.text == WORDS
    assert heard.duration == pytest.approx(len(samples) / RATE, abs=2e-3)


def test_an_array_may_be_changed_while_it_is_transcribed(model: Model, samples: Samples, expected: Transcript) -> None:
    # Taken by the first call, which waits for the second where both would use it.
    buffer = samples.copy()
    results = model.transcribe_many([buffer, buffer], jobs=1, sample_rate=RATE)
    first = next(results)
    assert first.words == expected.words
    with model.stream() as stream:
        stream.feed(buffer)
        buffer[:] = 0
        stream.finish()
        assert list(stream)[-1].text == WORDS  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_files_in_memory(model: Model, expected: Transcript, kind: Callable[[bytes], Any]) -> None:
    assert model.transcribe(kind(DIGITS.read_bytes())).words == expected.words


def test_open_files_and_names(model: Model, expected: Transcript) -> None:
    with DIGITS.open("rb") as file:
        assert model.transcribe(file).words == expected.words
    assert model.transcribe(str(DIGITS)).words == expected.words


def test_a_channel_of_a_file(model: Model, samples: Samples) -> None:
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((2, 2, RATE, 0, "NONE", ""))
        wav.writeframes(np.stack([0 * samples, samples], axis=1).tobytes())
    assert model.transcribe(file.getvalue(), channel=2).text == WORDS
    assert model.transcribe(file.getvalue(), channel=1).text == ""
    with pytest.raises(AudioError, match="there is no channel 3; the input has 2"):
        model.transcribe(file.getvalue(), channel=3)


def test_a_few_samples_that_are_no_numbers_are_silence_and_told(model: Model, samples: Samples) -> None:
    floats = samples / 32768
    floats[:100] = np.nan
    floats[100:150] = np.inf
    floats[150:160] = 1e300  # no number of 32 bits
    heard = model.transcribe(floats, RATE)
    assert heard.text == WORDS
    assert heard.notices == ["160 samples are not finite numbers: taken as silence"]
    assert heard.damage == []


def test_silence_is_told(model: Model) -> None:
    heard = model.transcribe(np.zeros(RATE, np.float32), RATE)
    assert (heard.text, heard.words, heard.segments, heard.to_srt()) == ("", [], [], "")
    assert heard.notices == ["the whole input is silence"]


@pytest.mark.parametrize("size", [1, 159, 1281])
def test_a_few_samples_are_audio(model: Model, size: int) -> None:
    assert model.transcribe(np.ones(size, np.int16), RATE).duration == pytest.approx(size / RATE, abs=1e-3)


@pytest.mark.parametrize(
    ("array", "rate", "error", "says"),
    [
        (np.zeros(0, np.float32), RATE, AudioError, "there is not a single sample"),
        (np.zeros((0, 2), np.float32), RATE, AudioError, "there is not a single sample"),
        (np.full(100, np.nan), RATE, AudioError, "not one of the 100 samples is a finite number"),
        (np.zeros(100), 0, AudioError, "a sample rate of 0 Hz; 1000 to 768000 are supported"),
        (np.zeros(100), 10**6, AudioError, "a sample rate of 1000000 Hz"),
        (np.zeros(100), -1, ValueError, "a sample rate of -1 Hz"),
        (np.zeros(100), 2**32, ValueError, "a sample rate of 4294967296 Hz"),
        (np.zeros((100, 0)), RATE, AudioError, "0 channels; 1 to 256 are supported"),
        (np.zeros((2, 1000)), RATE, ValueError, r"the shape \(samples,\) or \(samples, channels\), not \(2, 1000\)"),
        (np.zeros((2, 2, 2)), RATE, ValueError, r"not \(2, 2, 2\)"),
        (np.float32(1), RATE, ValueError, r"not \(\)"),
        (np.zeros(100, np.int64), RATE, TypeError, "not int64"),
        (np.zeros(100, np.uint16), RATE, TypeError, "not uint16"),
        (np.zeros(100, bool), RATE, TypeError, "not bool"),
        (np.zeros(100, complex), RATE, TypeError, "not complex128"),
        (np.zeros(100, np.longdouble), RATE, TypeError, "not "),
        (np.zeros(2, object), RATE, TypeError, "not object"),
        (None, RATE, TypeError, "not object"),
        (np.zeros(100), None, TypeError, "samples need a sample_rate, in Hz"),
        (DIGITS, RATE, TypeError, "sample_rate is for samples: a file says its own"),
        (io.StringIO("text"), None, TypeError, 'open it with mode "rb"'),
        (b"", None, AudioError, "the input is empty"),
        (b"plain text, and no audio at all" * 100, None, AudioError, "not audio"),
    ],
)
def test_what_is_no_audio_is_told(model: Model, array: Any, rate: int | None, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        model.transcribe(array, rate)


def test_a_channel_of_samples_is_a_column(model: Model) -> None:
    with pytest.raises(TypeError, match="take a column"):
        model.transcribe(np.zeros((100, 2)), RATE, channel=1)


def test_damage_is_listed_and_the_rest_is_heard(model: Model) -> None:
    whole = DIGITS.read_bytes()
    heard = model.transcribe(whole[: len(whole) // 2])
    assert heard.text and WORDS.startswith(heard.text)
    (damage,) = heard.damage
    assert damage.at == pytest.approx(heard.duration, abs=0.1)
    assert damage.lost == pytest.approx(8.195 / 2, abs=0.1)
    assert damage.what
