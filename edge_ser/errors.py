"""Errors a caller can handle.

    EdgeSerError
    ├── AudioFormatError         a file, stream or array that is not usable audio
    ├── AudioDeviceError         no such microphone, no PortAudio, a device in use
    ├── BundleError              a bundle that is missing, damaged or from another version
    ├── BackendUnavailableError  the wanted provider is not installed or has no device
    ├── EngineMismatchError      an engine built for another GPU or TensorRT version
    └── ConfigError              an option or a profile that does not fit

Every message says what we got, what we need and what to type.
"""


class EdgeSerError(Exception):
    """The base of every error that its reader can mend.

    Catch it around a whole program::

        try:
            recognizer = edge_ser.load("mdat-int8")
        except edge_ser.EdgeSerError as error:
            print(error)
    """


class AudioFormatError(EdgeSerError):
    """The audio is missing, empty, truncated, not audio, or holds values that are no samples."""


class AudioDeviceError(EdgeSerError):
    """The microphone is missing, in use, or PortAudio is not installed."""


class BundleError(EdgeSerError):
    """The bundle is missing, damaged, unsafe or of another format version."""


class BackendUnavailableError(EdgeSerError):
    """The wanted provider cannot run here."""


class EngineMismatchError(EdgeSerError):
    """The engine was built for another GPU or TensorRT version."""


class ConfigError(EdgeSerError):
    """An option, a voice profile or a setting does not fit."""
