"""Recordings and samples, as people have them, for the native half."""

from __future__ import annotations

import os
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt


@runtime_checkable
class Readable(Protocol):
    """A file that is open for reading bytes."""

    def read(self) -> bytes: ...


Recording = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | npt.NDArray[Any]
"""What can be transcribed: a path, what is in a file, an open file, or samples."""

MOST_CHANNELS = 256

# Zero and full scale of what samples may be.
SCALES = {
    "u1": (128.0, 128.0),
    "i2": (0.0, 2.0**15),
    "i4": (0.0, 2.0**31),
    "f2": (0.0, 1.0),
    "f4": (0.0, 1.0),
    "f8": (0.0, 1.0),
}


def opened(
    recording: Recording, sample_rate: int | None, channel: int | None
) -> str | bytes | tuple[bytes, int, int]:
    """A path, what is in a file, or samples with their channels and rate. Samples are copied."""
    if isinstance(recording, (str, os.PathLike)):
        known: str | bytes = os.fspath(recording)
    elif isinstance(recording, (bytes, bytearray, memoryview)):
        known = bytes(recording)
    elif isinstance(recording, Readable):
        known = recording.read()
        if isinstance(known, str):
            raise TypeError('the file gives text: open it with mode "rb"')
    else:
        if sample_rate is None:
            raise TypeError("samples need a sample_rate, in Hz")
        if channel is not None:
            raise TypeError("channel is for files: take a column of the samples")
        if not 0 <= sample_rate < 2**32:
            raise ValueError(f"a sample rate of {sample_rate} Hz")
        return (*interleaved(recording), sample_rate)
    if sample_rate is not None:
        raise TypeError("sample_rate is for samples: a file says its own")
    return known


def interleaved(samples: npt.ArrayLike) -> tuple[bytes, int]:
    """A copy of samples as f32, `[samples, channels]`, full scale ±1, and their channels."""
    array = np.asarray(samples)
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    if kind not in SCALES:
        raise TypeError(f"samples are uint8, int16, int32 or floats of at most 64 bits, not {array.dtype}")
    channels = array.shape[1] if array.ndim == 2 else 1
    if array.ndim not in (1, 2) or channels > MOST_CHANNELS:
        raise ValueError(f"samples have the shape (samples,) or (samples, channels), not {array.shape}")
    zero, full = SCALES[kind]
    # Beyond the range of f32 is no sound: it becomes infinite, and is told of.
    with np.errstate(over="ignore"):
        numbers = np.multiply(array, 1.0 / full, dtype="<f4", casting="unsafe")
    if zero != 0.0:
        numbers -= np.float32(zero / full)
    return numbers.tobytes(), channels
