"""What goes wrong is an exception of its kind, in the library's words."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
from conftest import DIGITS

import voxtral_rs
from voxtral_rs import AudioError, DeviceError, Model, ModelError, OutOfMemory, VoxtralError


def test_a_file_that_is_not_there(model: Model) -> None:
    with pytest.raises(AudioError, match=r"^/no/such/talk\.mp3: No such file or directory") as caught:
        model.transcribe("/no/such/talk.mp3")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_folder_is_no_recording(model: Model, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=f"^{tmp_path}: "):
        model.transcribe(tmp_path)


def test_models_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model here: looked for params.json"):
        Model(tmp_path, device="cpu")
    with pytest.raises(ModelError, match="no/such/model: No such file") as caught:
        Model("no/such/model", device="cpu")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_devices_that_are_none() -> None:
    for device in ("gpu", "cuda:", "cuda:-1", "cuda:x", ""):
        with pytest.raises(ValueError, match='expected "auto", "cpu", "cuda" or "cuda:N"'):
            Model(device=device)
    with pytest.raises(DeviceError):
        Model(device="cuda:1000")
    with pytest.raises(ValueError, match="threads is a number from 1"):
        Model(device="cpu", threads=0)


def test_that_the_cpu_stands_in_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "voxtral_rs"), Model(device="auto") as model:
        pass
    if model.backend == "cuda":
        pytest.skip("there is a GPU")
    assert caplog.messages == [f"running on the CPU: {model.fallback}"]


def test_delays_and_pauses_that_are_none(model: Model) -> None:
    with pytest.raises(ValueError, match="a delay of 100 ms is not one the model knows"):
        model.transcribe(DIGITS, delay_ms=100)
    with pytest.raises(ValueError, match="endpoint_ms is from 200 to 60000"):
        model.stream(endpoint_ms=100)
    with pytest.raises(AudioError, match="a sample rate of 10 Hz"):
        model.stream(10)
    with pytest.raises(ValueError, match="jobs is a number from 1"):
        model.transcribe_many([], jobs=0)


@pytest.mark.parametrize("kind", [VoxtralError, AudioError, ModelError, DeviceError, OutOfMemory])
def test_exceptions_travel_between_processes(kind: type[VoxtralError]) -> None:
    assert kind is getattr(voxtral_rs, kind.__name__) and issubclass(kind, VoxtralError)
    error = pickle.loads(pickle.dumps(kind("why")))
    assert type(error) is kind and str(error) == "why"
    assert kind.__module__ == "voxtral_rs"


def test_transcripts_travel_and_models_do_not(model: Model) -> None:
    transcript = model.transcribe(DIGITS)
    assert pickle.loads(pickle.dumps(transcript)) == transcript
    with pytest.raises(TypeError, match="open it in each"):
        pickle.dumps(model)
