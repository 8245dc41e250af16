"""What can go wrong. The native half raises these."""

class VoxtralError(Exception):
    """What all of them are, and what none of the others fits."""


class AudioError(VoxtralError):
    """The audio cannot be read. Where the system refused it, its `OSError` is the `__cause__`."""


class ModelError(VoxtralError):
    """The model's files are not as they must be. Where the system refused one, its `OSError` is the `__cause__`."""


class DeviceError(VoxtralError):
    """The device that was asked for cannot be used, or it failed."""


class OutOfMemory(VoxtralError, MemoryError):
    """The device has too little memory for the model, or for one more recording."""


for _error in (VoxtralError, AudioError, ModelError, DeviceError, OutOfMemory):
    _error.__module__ = "voxtral_rs"
