"""Files of any kind and pipes give the same samples; broken ones say what is wrong."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.errors import AudioFormatError
from edge_ser.sources import paced, pcm_blocks, read_blocks, read_samples


def tone(seconds: float = 2.5, rate_hz: int = 16_000) -> np.ndarray:
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * 220 * time_s) + 0.1 * np.sin(2 * np.pi * 1_500 * time_s)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate_hz: int = 16_000, **options: str) -> Path:
    soundfile.write(path, samples, rate_hz, **options)
    return path


def test_a_16_bit_file_gives_exactly_its_samples(tmp_path: Path) -> None:
    integers = np.random.default_rng(1).integers(-32768, 32768, 40_001, dtype=np.int16)
    path = write(tmp_path / "a.wav", integers)

    blocks = list(read_blocks(path))

    assert [len(block) for block in blocks] == [16_000, 16_000, 8_001]
    assert all(block.dtype == np.float32 for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), integers / np.float32(32768))


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 44_100, 48_000, 96_000])
def test_blocks_resample_to_what_the_whole_resamples_to(tmp_path: Path, rate_hz: int) -> None:
    samples = tone(rate_hz=rate_hz)
    path = write(tmp_path / "a.wav", samples, rate_hz, subtype="FLOAT")

    whole = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ)

    np.testing.assert_allclose(read_samples(path), whole, atol=1e-6)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(1.0), np.zeros(16_000, np.float32)
    path = write(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT")

    np.testing.assert_allclose(read_samples(path), left / 2, atol=1e-7)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.aiff", "a.wav"])
def test_formats_keep_duration_and_sound(tmp_path: Path, name: str) -> None:
    samples = read_samples(write(tmp_path / name, tone(3.0, 44_100), 44_100))

    assert len(samples) == pytest.approx(48_000, abs=1_000)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(np.sqrt(np.mean(tone(3.0) ** 2)), rel=0.05)


def test_float_files_are_clipped_to_full_scale(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 10 * tone(1.0), subtype="FLOAT")

    samples = read_samples(path)

    assert samples.max() == 1.0
    assert samples.min() == -1.0


def test_reading_a_long_file_holds_only_a_block(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.zeros(20 * 48_000, np.float32), 48_000)

    assert max(len(block) for block in read_blocks(path)) < 2 * SAMPLE_RATE_HZ


def cut(path: Path, fraction: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au", "a.w64", "a.flac", "a.mp3"])
def test_a_truncated_file_is_an_error(tmp_path: Path, name: str) -> None:
    path = cut(write(tmp_path / name, tone()), 0.5)

    with pytest.raises(AudioFormatError, match="is cut off"):
        read_samples(path)


def test_a_wav_that_was_written_to_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1.0))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)

    assert len(read_samples(path)) == 16_000


def of_unknown_length(path: Path) -> Path:
    """Make a FLAC file what an encoder writes to a pipe: the 36 bits of its length are 0."""
    data = bytearray(path.read_bytes())
    assert data[:4] == b"fLaC"
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("samples", [48_000, 48_001, 100])
def test_a_flac_that_was_written_to_a_pipe_is_read_to_its_end(tmp_path: Path, samples: int) -> None:
    path = write(tmp_path / "a.flac", tone(4.0)[:samples])
    whole = read_samples(path)

    np.testing.assert_array_equal(read_samples(of_unknown_length(path)), whole)
    assert len(whole) == samples


def test_a_truncated_flac_of_unknown_length_is_an_error(tmp_path: Path) -> None:
    path = cut(of_unknown_length(write(tmp_path / "a.flac", tone())), 0.5)

    with pytest.raises(AudioFormatError, match="is cut off"):
        read_samples(path)


def test_a_file_whose_name_is_no_utf_8_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(1.0))
    path = (tmp_path / "a.wav").rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))

    assert len(read_samples(path)) == 16_000


def broken_files(folder: Path) -> dict[str, Path]:
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no audio " * 20)
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "headerless.RAW").write_bytes(bytes(32_000))
    (folder / "circle.wav").symlink_to("circle.wav")
    nan = tone(1.5)
    nan[20_000] = np.nan
    return {
        "does not exist": folder / "missing.wav",
        "does not exist. Check the name: ls": folder / "text.wav" / "a.wav",
        "is a folder": folder / "folder.wav",
        "is raw audio": folder / "headerless.RAW",
        "File name too long": folder / ("a" * 300 + ".wav"),
        "Too many levels of symbolic links": folder / "circle.wav",
        "embedded null byte": folder / "a\0.wav",
        "is empty": folder / "empty.wav",
        "is not audio": folder / "text.wav",
        "is a pipe": folder / "pipe.wav",
        "holds no audio": write(folder / "zero.wav", np.zeros(0, np.float32)),
        "is no number near 1.0 s": write(folder / "nan.wav", nan, subtype="FLOAT"),
        "has 2000 samples per second": write(folder / "slow.wav", tone(), 2_000),
    }


def test_every_broken_file_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    for problem, path in broken_files(tmp_path).items():
        with pytest.raises(AudioFormatError, match=problem) as caught:
            read_samples(path)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert "\n" not in message


def test_a_file_below_a_folder_that_is_closed_to_us_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may read everything, so the system is made to refuse.
    def refuse(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(AudioFormatError, match=r"cannot be read \(Permission denied\)"):
        read_blocks(tmp_path / "a.wav")


def test_what_can_be_seen_at_once_is_raised_before_the_first_block(tmp_path: Path) -> None:
    with pytest.raises(AudioFormatError):
        read_blocks(tmp_path / "missing.wav")


class Pipe(io.RawIOBase):
    """Hands out its bytes in pieces of the given sizes, as a pipe does."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = data
        self._sizes = list(sizes)

    def read(self, size: int = -1) -> bytes:
        size = min(size, self._sizes.pop(0)) if self._sizes else size
        piece, self._data = self._data[:size], self._data[size:]
        return piece


@given(samples=st.lists(st.integers(-32768, 32767), max_size=60), sizes=st.lists(st.integers(1, 7), max_size=80))
def test_the_pieces_of_a_pipe_never_change_its_samples(samples: list[int], sizes: list[int]) -> None:
    integers = np.array(samples, "<i2")

    blocks = list(pcm_blocks(Pipe(integers.tobytes(), sizes)))

    assert all(len(block) for block in blocks)
    np.testing.assert_array_equal(np.concatenate([np.zeros(0, np.float32), *blocks]), integers / np.float32(32768))


def test_half_a_sample_at_the_end_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    blocks = list(pcm_blocks(io.BytesIO(b"\x00\x40\x01")))

    np.testing.assert_array_equal(np.concatenate(blocks), [0.5])
    assert "half a sample" in caplog.text


def test_a_pipe_that_does_not_block_is_read_to_its_end() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def write_late() -> None:
        for piece in (b"\x00\x40", b"\x00\xc0"):
            time.sleep(0.05)
            os.write(writer, piece)
        os.close(writer)

    thread = threading.Thread(target=write_late)
    thread.start()
    with open(reader, "rb", buffering=0) as pipe:
        samples = np.concatenate([np.zeros(0, np.float32), *pcm_blocks(pipe)])
    thread.join()

    np.testing.assert_array_equal(samples, [0.5, -0.5])


def test_a_pipe_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with open(tmp_path / "output", "wb", buffering=0) as output, open(output.fileno(), "rb", 0, closefd=False) as pipe:
        with pytest.raises(AudioFormatError, match=r"the input cannot be read \(Bad file descriptor\)"):
            list(pcm_blocks(pipe))


def test_pacing_keeps_the_samples_and_takes_their_time() -> None:
    blocks = [tone(0.1), tone(0.05)]
    began_s = time.monotonic()

    chunks = list(paced(blocks))

    assert time.monotonic() - began_s >= 0.149
    assert max(len(chunk) for chunk in chunks) == 320
    np.testing.assert_array_equal(np.concatenate(chunks), np.concatenate(blocks))


@pytest.mark.parametrize("start", [b"RIFF", b"fLaC", b"OggS", b"FORM", b"ID3"])
def test_an_audio_file_on_stdin_is_not_taken_for_samples(start: bytes) -> None:
    with pytest.raises(AudioFormatError, match="--input FILE"):
        list(pcm_blocks(io.BytesIO(start + bytes(4000))))
