"""Streaming speech to text with Voxtral Realtime, on your own machine.

>>> from voxtral_rs import Model
>>> with Model("digits", device="cpu") as model:
...     print(model.transcribe("samples/digits.wav"))
four seven one one nine zero two six three five eight

`Model` opens a model on a GPU or the CPU, `Model.transcribe` makes a `Transcript` of a recording, `Model.transcribe_many` of many at a
time, and `Model.stream` opens a `Stream` for live audio.
"""

from voxtral_rs._errors import AudioError, DeviceError, ModelError, OutOfMemory, VoxtralError
from voxtral_rs._model import Model
from voxtral_rs._stream import Partial, Stream
from voxtral_rs._transcript import Damage, Segment, Stats, Token, Transcript, Word
from voxtral_rs._voxtral import __version__

__all__ = [
    "AudioError",
    "Damage",
    "DeviceError",
    "Model",
    "ModelError",
    "OutOfMemory",
    "Partial",
    "Segment",
    "Stats",
    "Stream",
    "Token",
    "Transcript",
    "VoxtralError",
    "Word",
    "__version__",
]
