"""What a service manager such as systemd is told: that the program listens, that it is alive, that it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from edge_ser.events import DeviceLost, DeviceRestored

Item = TypeVar("Item")

_SIGNS_OF_LIFE_PER_TIMEOUT = 4


class ServiceManager:
    """Writes to the socket in `$NOTIFY_SOCKET`, in the way of sd_notify(3); without one, all of this does nothing."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Find the manager.

        Args:
            environment: None takes the process's own.
        """
        found = os.environ if environment is None else environment
        # A leading @ stands for the zero byte of an abstract address.
        self._address = found.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        timeout_us = found.get("WATCHDOG_USEC", "")
        meant = found.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._timeout_us = int(timeout_us) if timeout_us.isdecimal() and meant else 0
        self._said_s = -float("inf")

    @property
    def is_there(self) -> bool:
        """True if somebody is told."""
        return bool(self._address)

    @property
    def interval_s(self) -> float:
        """Seconds between two signs of life; infinite where none are wanted."""
        return self._timeout_us / 1e6 / _SIGNS_OF_LIFE_PER_TIMEOUT or float("inf")

    def ready(self) -> None:
        """Say that the program does its work from now on."""
        self._tell("READY=1")

    def alive(self) -> None:
        """Say that the program works; as often as one likes, it is passed on once in `interval_s`."""
        now_s = time.monotonic()
        if self._timeout_us and now_s - self._said_s >= self.interval_s:
            self._said_s = now_s
            self._tell("WATCHDOG=1")

    def waits(self, reason: str) -> None:
        """Say that the program waits for somebody else, and gives no sign of life until `goes_on`."""
        # One line: a device may bear any name, and each line is a message of its own.
        self._tell(f"STATUS={' '.join(reason.split())}", *(["WATCHDOG_USEC=0"] if self._timeout_us else []))

    def goes_on(self) -> None:
        """Say that the wait is over."""
        self._tell("STATUS=", *([f"WATCHDOG_USEC={self._timeout_us}"] if self._timeout_us else []))

    def stopping(self) -> None:
        """Say that the program ends."""
        self._tell("STOPPING=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # A manager that is gone is no reason to stop listening.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)
            connection.sendto("\n".join(lines).encode(), self._address)


def supervised(source: Iterable[Item], manager: ServiceManager | None = None) -> Iterator[Item]:
    """Yield the items of a source of audio; each is a sign of life, the first one says that the program is ready.

    While a microphone is away none is owed: the program waits for it.

    Args:
        source: Audio and what happened to it.
        manager: Who is told; None takes the process's own.
    """
    told = manager or ServiceManager()
    is_ready = False
    try:
        for item in source:
            if not is_ready:
                told.ready()
                is_ready = True
            told.alive()
            if isinstance(item, DeviceLost):
                told.waits(f"waiting for {item.device}")
            elif isinstance(item, DeviceRestored):
                told.goes_on()
            yield item
    finally:
        told.stopping()


async def signs_of_life(manager: ServiceManager | None = None) -> None:
    """Tell the manager again and again that the event loop turns, until this is cancelled.

    Args:
        manager: Who is told; None takes the process's own.
    """
    told = manager or ServiceManager()
    while told.interval_s < float("inf"):
        told.alive()
        await asyncio.sleep(told.interval_s)
