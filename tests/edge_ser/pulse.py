"""A microphone without hardware: a private PulseAudio server whose only source is a pipe that a test fills."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import threading
import time
from ctypes.util import find_library
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHUNK_SAMPLES = 320
CHUNK_S = 0.02


def missing() -> str | None:
    """Return what this machine lacks for a private microphone, or None."""
    for program in ("pulseaudio", "pactl"):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt install pulseaudio pulseaudio-utils)"
    if find_library("portaudio") is None:
        return "PortAudio is not installed (apt install libportaudio2)"
    if not list(Path("/usr/lib").glob("**/alsa-lib/libasound_module_pcm_pulse.so")):
        return "ALSA has no PulseAudio plugin (apt install libasound2-plugins)"
    return None


class PulseMicrophone:
    """Plays silence into the private microphone, and what `play` is given, at 16 kHz in real time."""

    def __init__(self, folder: Path) -> None:
        self._fifo = folder / "microphone.fifo"
        self._socket = folder / "native"
        (folder / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
        paths = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "PULSE_SERVER": f"unix:{self._socket}"}
        self.environment = {**os.environ, **paths}
        self._server = self._start_server()
        self._pending = b""
        self._lock = threading.Lock()
        self._played = threading.Event()
        self._closing = threading.Event()
        self._reopen = threading.Event()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def _start_server(self) -> subprocess.Popen[bytes]:
        modules = (
            f"module-native-protocol-unix auth-anonymous=1 socket={self._socket}",
            f"module-pipe-source file={self._fifo} rate=16000 channels=1 format=s16le source_name=private",
        )
        options = ["-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm=yes", "--use-pid-file=no"]
        command = ["pulseaudio", *options, *(f"--load={module}" for module in modules)]
        server = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
        wait_until(lambda: self._socket.exists() and self._fifo.exists(), "PulseAudio did not start")
        return server

    def control(self, *words: str) -> str:
        """Run `pactl` and return what it says."""
        command = ["pactl", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, check=True, text=True).stdout

    def wait_for_listener(self) -> None:
        """Return once a program records from the microphone."""
        listeners = ("list", "short", "source-outputs")
        wait_until(lambda: self.control(*listeners).strip(), "nobody listens to the microphone")

    def play(self, samples: NDArray[np.int16]) -> None:
        """Play int16 samples, shape (n,), at 16 kHz; return when the last one is in the pipe."""
        self._played.clear()
        with self._lock:
            self._pending = samples.astype("<i2").tobytes()
        if not self._played.wait(len(samples) / 16_000 + 20):
            raise TimeoutError("PulseAudio does not read its pipe")

    def kill_server(self) -> None:
        """Take the microphone away while somebody records."""
        self._server.kill()
        self._server.wait()

    def restart_server(self) -> None:
        """Bring the microphone back after `kill_server`; what the old server had not read is gone."""
        self._socket.unlink(missing_ok=True)
        self._fifo.unlink()
        self._server = self._start_server()
        self._reopen.set()

    def stop_answering(self) -> None:
        """Leave the server there, but as if it hung."""
        self._server.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """Stop the server and the writer."""
        self._closing.set()
        self._writer.join(5)
        self._server.terminate()
        self._server.send_signal(signal.SIGCONT)
        self._server.wait(10)

    def _write(self) -> None:
        pipe = self._open_pipe()
        due_s = time.monotonic()
        chunk = b""
        while not self._closing.is_set():
            if self._reopen.is_set():
                self._reopen.clear()
                os.close(pipe)
                pipe = self._open_pipe()
            due_s += CHUNK_S
            time.sleep(max(0.0, due_s - time.monotonic()))
            chunk = chunk or self._next_chunk()
            try:
                os.write(pipe, chunk)
                chunk = b""
            except BlockingIOError:
                due_s = time.monotonic()
        os.close(pipe)

    def _open_pipe(self) -> int:
        # Read and write, so that opening does not wait for the server and writing outlives it.
        pipe = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        # The server reads only while somebody records; the pipe must not store seconds until then.
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
        return pipe

    def _next_chunk(self) -> bytes:
        size = 2 * CHUNK_SAMPLES
        with self._lock:
            data, self._pending = self._pending[:size], self._pending[size:]
            if data and not self._pending:
                self._played.set()
        return data + bytes(size - len(data))


def wait_until(condition, problem: str, timeout_s: float = 30.0) -> None:
    """Return once `condition()` is true; raise TimeoutError with the problem."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError(problem)
        time.sleep(0.05)
