"""Audio from files and pipes, as blocks of mono float32 at 16 kHz."""

from __future__ import annotations

import logging
import os
import re
import select
import stat
import time
from collections.abc import Iterable, Iterator
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import MAX_RATE_HZ, MIN_RATE_HZ, SAMPLE_RATE_HZ
from edge_ser.errors import AudioFormatError

if TYPE_CHECKING:
    import soundfile

AUDIO_SUFFIXES = frozenset(
    {".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".w64", ".wav"}
)
"""Files in a folder are taken for audio by these, in lower case."""
BLOCK_S = 1.0
PACE_S = 0.02
LONGEST_WHOLE_S = 7200.0
"""Seconds; a small file can hold days of silence, which would not fit into memory at once."""
_FILE_STARTS = (b"RIFF", b"fLaC", b"OggS", b"FORM", b"ID3")
PCM_READ_BYTES = 32_000
# What libsndfile writes about a container whose header promises more bytes than the file has.
_PROMISE = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
# Programs that write to a pipe cannot know the length and put a number near 2^31 or 2^32 in the header.
_UNKNOWN_LENGTH_BYTES = 0x7FFF_0000
# libsndfile's word for an unknown length is 2^63 - 1; no file holds this many samples.
_UNKNOWN_LENGTH_FRAMES = 1 << 48
# The last frame of a lossy file may be counted and yet decode to nothing.
_MISSING_FRAMES_ALLOWED = 2 * 1152

_log = logging.getLogger("edge_ser")


def read_blocks(path: str | Path) -> Iterator[NDArray[np.float32]]:
    """Return the audio of a file in blocks of about a second, whatever its rate, channels and format.

    The file is opened and checked at once; the blocks are read as they are taken, in constant memory. Their
    concatenation is what resampling the whole file at once gives.

    Args:
        path: A file that libsndfile reads (WAV, FLAC, OGG, MP3, AIFF, …), 4 to 384 kHz.

    Returns:
        Blocks of mono float32 in [-1, 1], shape (n,), at 16 kHz; channels are averaged.

    Raises:
        AudioFormatError: The file is missing, empty, truncated or not audio, here or, for what only shows while
            reading, from the iterator.
    """
    path = Path(path)
    sound = _open(path)
    if sound.samplerate == SAMPLE_RATE_HZ:
        return _read(sound, path)
    return _resampled(_read(sound, path), sound.samplerate)


def read_samples(path: str | Path) -> NDArray[np.float32]:
    """Return a whole file as mono float32 in [-1, 1], shape (n,), at 16 kHz.

    Raises:
        AudioFormatError: As for `read_blocks`, or it is longer than `LONGEST_WHOLE_S`.
    """
    blocks: list[NDArray[np.float32]] = []
    room = round(LONGEST_WHOLE_S * SAMPLE_RATE_HZ)
    for block in read_blocks(path):
        room -= len(block)
        if room < 0:
            raise AudioFormatError(
                f"{path} is longer than {LONGEST_WHOLE_S / 3600:g} hours, as a whole less is needed. "
                f"Judge it utterance by utterance: edge-ser classify {path}"
            )
        blocks.append(block)
    return np.concatenate(blocks)


def pcm_blocks(binary_file: BinaryIO | RawIOBase) -> Iterator[NDArray[np.float32]]:
    """Yield raw s16le mono 16 kHz audio from a pipe as it arrives.

    Args:
        binary_file: Unbuffered if the audio is live: a buffered file waits until a whole block is there.

    Yields:
        Mono float32 in [-1, 1), shape (n,), at 16 kHz. Half a sample at the end is left out, with a warning.

    Raises:
        AudioFormatError: The pipe cannot be read, or begins as a WAV, FLAC, OGG, AIFF or MP3 file does.
    """
    half = b""
    first = True
    while data := _piece(binary_file):
        if first and data.startswith(_FILE_STARTS):
            raise AudioFormatError(
                "the input is an audio file, raw s16le 16 kHz mono audio is needed. "
                "Give the file's name: edge-ser listen --input FILE"
            )
        first = False
        data = half + data
        whole = len(data) - len(data) % 2
        half = data[whole:]
        if whole:
            yield np.frombuffer(data[:whole], "<i2").astype(np.float32) / np.float32(32768)
    if half:
        _log.warning("the input ends with half a sample; is it s16le, mono, 16 kHz?")


def _piece(binary_file: BinaryIO | RawIOBase) -> bytes:
    """Return what there is, at least a byte, or nothing at the end."""
    try:
        # None says that a pipe which does not block has nothing yet; the end is b"".
        while (data := binary_file.read(PCM_READ_BYTES)) is None:
            select.select([binary_file], [], [])
    except OSError as error:
        raise AudioFormatError(
            f"the input cannot be read ({error.strerror}), raw s16le 16 kHz mono audio is needed. "
            "Type: arecord -q -t raw -f S16_LE -r 16000 -c 1 | edge-ser listen --input -"
        ) from error
    return data


def paced(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield the same audio in chunks of 20 ms, each when a microphone would have delivered it."""
    size = round(PACE_S * SAMPLE_RATE_HZ)
    began_s = time.monotonic()
    delivered = 0
    for block in blocks:
        for start in range(0, len(block), size):
            chunk = block[start : start + size]
            delivered += len(chunk)
            time.sleep(max(0.0, began_s + delivered / SAMPLE_RATE_HZ - time.monotonic()))
            yield chunk


def _open(path: Path) -> soundfile.SoundFile:
    import soundfile

    _check_is_file(path)
    try:
        # As bytes: soundfile cannot encode a name that is no UTF-8.
        sound = soundfile.SoundFile(os.fsencode(path))
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        raise AudioFormatError(
            f"{path} is not audio that can be read ({reason}). "
            f"Use WAV, FLAC, OGG or MP3, or convert it: ffmpeg -i {path} {path.with_suffix('.flac').name}"
        ) from error
    try:
        _check_header(sound, path)
    except AudioFormatError:
        sound.close()
        raise
    if _is_unknown(sound.frames):
        # soundfile seeks to where each read ended, and libsndfile cannot seek to an end that it does not know.
        sound.seekable = lambda: False
    return sound


def _check_is_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioFormatError(f"{path} does not exist. Check the name: ls {path.parent}") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have.
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(mode):
        raise AudioFormatError(f"{path} is a folder, one audio file is needed. Try: edge-ser classify {path}")
    if not stat.S_ISREG(mode):
        raise AudioFormatError(
            f"{path} is a pipe or a device, a file is needed. "
            f"Raw s16le 16 kHz mono can be piped: edge-ser listen --input - < {path}"
        )
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if empty:
        raise AudioFormatError(f"{path} is empty (0 bytes), audio is needed. Record or copy it again.")
    if path.suffix.lower() == ".raw":
        raise AudioFormatError(
            f"{path} is raw audio, which does not say its rate and format; a file that does is needed. "
            f"If it is s16le 16 kHz mono, pipe it: edge-ser listen --input - < {path}"
        )


def _unreadable(path: Path, error: OSError | ValueError) -> AudioFormatError:
    reason = error.strerror if isinstance(error, OSError) else error
    return AudioFormatError(f"{path} cannot be read ({reason}), an audio file is needed. Check it: ls -l {path}")


def _check_header(sound: soundfile.SoundFile, path: Path) -> None:
    for promise in _PROMISE.finditer(sound.extra_info):
        promised, there = int(promise[1]), int(promise[2])
        if there < promised < _UNKNOWN_LENGTH_BYTES:
            raise _truncated(path, f"{there} of {promised} bytes")
    if sound.frames == 0:
        raise _without_audio(path)
    if not MIN_RATE_HZ <= sound.samplerate <= MAX_RATE_HZ:
        raise AudioFormatError(
            f"{path} has {sound.samplerate} samples per second, {MIN_RATE_HZ} to {MAX_RATE_HZ} are needed. "
            f"Convert it: sox {path} -r {SAMPLE_RATE_HZ} {path.with_suffix('.flac').name}"
        )


def _is_unknown(frames: int) -> bool:
    return frames >= _UNKNOWN_LENGTH_FRAMES


def _without_audio(path: Path) -> AudioFormatError:
    return AudioFormatError(f"{path} holds no audio (0 samples), audio is needed. Record or copy it again.")


def _truncated(path: Path, how: str) -> AudioFormatError:
    return AudioFormatError(f"{path} is cut off ({how} are there), the whole file is needed. Record or copy it again.")


def _read(sound: soundfile.SoundFile, path: Path) -> Iterator[NDArray[np.float32]]:
    import soundfile

    size = round(BLOCK_S * sound.samplerate)
    done = 0
    with sound:
        while True:
            try:
                frames = sound.read(size, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise _truncated(path, f"the first {done / sound.samplerate:.1f} s") from error
            if not len(frames):
                break
            if not np.isfinite(frames).all():
                raise AudioFormatError(
                    f"{path} holds a value that is no number near {done / sound.samplerate:.1f} s, "
                    "samples in [-1, 1] are needed. Write the file again."
                )
            done += len(frames)
            mono = frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1, dtype=np.float32)
            yield np.clip(mono, -1.0, 1.0)
        if not done:
            raise _without_audio(path)
        if not _is_unknown(sound.frames) and done + _MISSING_FRAMES_ALLOWED < sound.frames:
            raise _truncated(path, f"{done} of {sound.frames} samples")


def _resampled(blocks: Iterator[NDArray[np.float32]], rate_hz: int) -> Iterator[NDArray[np.float32]]:
    import soxr

    resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
    for block in blocks:
        yield np.clip(resampler.resample_chunk(block), -1.0, 1.0)
    yield np.clip(resampler.resample_chunk(np.zeros(0, np.float32), last=True), -1.0, 1.0)
