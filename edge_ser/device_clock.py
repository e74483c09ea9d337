"""The device's clock against this machine's: they drift apart slowly, and jump apart where audio was lost."""

from __future__ import annotations

JUMP_S = 0.25
"""Less than this is taken for a block that came late."""
HOLD_S = 2.0
"""A jump that lasts this long is no late block: the audio never comes."""
_MOST_DRIFT = 0.005


class DeviceClock:
    """Follows how far the audio of a device lags behind this machine's clock, and finds audio lost without a word.

    No two crystals agree; a microphone that is 0.01 % slow falls 0.36 s behind in an hour. That is followed and never
    counted as a loss. A lag that grows by `JUMP_S` at once and stays for `HOLD_S` is a loss: late audio catches up.
    """

    def __init__(self) -> None:
        self._started_s: float | None = None
        self._delivered_s = 0.0
        self._lag_s = 0.0
        self._lost_s = 0.0
        self._noted_s = 0.0
        self._jumped_s: float | None = None
        self._least_jump_s = 0.0

    @property
    def drift_s(self) -> float:
        """Seconds that the device's clock is behind this machine's since the first block; negative if it is ahead."""
        return self._lag_s - self._lost_s

    def note(self, now_s: float, block_s: float) -> float:
        """Take note of a block and return the seconds that were lost before it, mostly 0.

        Args:
            now_s: Seconds, on a monotonic clock; when the block arrived.
            block_s: Seconds of audio in it.
        """
        if self._started_s is None:
            self._started_s = now_s - block_s
            self._noted_s = now_s
        self._delivered_s += block_s
        passed_s, self._noted_s = now_s - self._noted_s, now_s
        jump_s = now_s - self._started_s - self._delivered_s - self._lag_s
        if jump_s < JUMP_S:
            # Upwards no faster than any crystal drifts, since most of what is late is only late.
            self._lag_s += min(jump_s, _MOST_DRIFT * passed_s)
            self._jumped_s = None
            return 0.0
        if self._jumped_s is None:
            self._jumped_s, self._least_jump_s = now_s, jump_s
        self._least_jump_s = min(self._least_jump_s, jump_s)
        if now_s - self._jumped_s < HOLD_S:
            return 0.0
        self._jumped_s = None
        self.forgive(self._least_jump_s)
        return self._least_jump_s

    def forgive(self, lost_s: float) -> None:
        """Count `lost_s` seconds as lost, which the device has told itself."""
        self._lag_s += lost_s
        self._lost_s += lost_s
