"""Audio in, one calibrated emotion per utterance out, on the device.

Recognizer, stream and microphone are imported when first used, so `import edge_ser` is quick and loads no library but
the standard one.
"""

import importlib as _importlib
import os as _os
import typing as _typing

from edge_ser.errors import (
    AudioDeviceError,
    AudioFormatError,
    BackendUnavailableError,
    BundleError,
    ConfigError,
    EdgeSerError,
    EngineMismatchError,
)
from edge_ser.events import (
    DeviceLost,
    DeviceRestored,
    Emotion,
    Overflow,
    Rejected,
    SpeechStarted,
    Summary,
)
from edge_ser.ledger import AudioLedger

if _typing.TYPE_CHECKING:
    from edge_ser.microphone import Microphone
    from edge_ser.recognizer import EmotionRecognizer, load
    from edge_ser.stream import Stream
    from edge_ser.voice import VoiceProfile

# ONNX Runtime sends usage data home unless told not to before it is imported; nothing may leave the device.
_os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"

__all__ = [
    "AudioDeviceError",
    "AudioFormatError",
    "AudioLedger",
    "BackendUnavailableError",
    "BundleError",
    "ConfigError",
    "DeviceLost",
    "DeviceRestored",
    "EdgeSerError",
    "Emotion",
    "EmotionRecognizer",
    "EngineMismatchError",
    "Microphone",
    "Overflow",
    "Rejected",
    "SpeechStarted",
    "Stream",
    "Summary",
    "VoiceProfile",
    "__version__",
    "load",
]

_LATE = {
    "EmotionRecognizer": "edge_ser.recognizer",
    "Microphone": "edge_ser.microphone",
    "Stream": "edge_ser.stream",
    "VoiceProfile": "edge_ser.voice",
    "load": "edge_ser.recognizer",
}


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module 'edge_ser' has no attribute '{name}'")
    value: object = getattr(_importlib.import_module(_LATE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
