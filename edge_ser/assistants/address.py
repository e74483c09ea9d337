"""Where a service listens, and who can reach it there."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_ser.errors import ConfigError

_SCHEMES = ("tcp", "ws")


@dataclass(frozen=True)
class Address:
    """A TCP port of this machine, or a Unix socket."""

    host: str = "127.0.0.1"
    """Name or number of a network interface."""
    port: int = 0
    """Port; 0 lets the system choose."""
    path: str | None = None
    """The Unix socket's file; where it is given, there is no port."""

    @staticmethod
    def parse(uri: str, default_port: int) -> Address:
        """Return the address that a URI names.

        Args:
            uri: `tcp://HOST:PORT` or `ws://HOST:PORT`, an IPv6 address in brackets, or `unix:///PATH`.
            default_port: Port where none is given.

        Raises:
            ConfigError: It is no such URI.
        """
        try:
            parts = urlsplit(uri)
            host, port = parts.hostname, parts.port
        except ValueError as problem:
            raise ConfigError(f"got the URI {uri!r} ({problem}); {_NEED}") from None
        if parts.scheme == "unix" and not parts.netloc and len(parts.path) > 1:
            return Address(path=parts.path)
        if parts.scheme not in _SCHEMES or not host or parts.path.strip("/") or parts.query or parts.username:
            raise ConfigError(f"got the URI {uri!r}; {_NEED}")
        return Address(host, default_port if port is None else port)

    @property
    def is_private(self) -> bool:
        """True if nobody beyond this machine can reach it.

        Raises:
            ConfigError: There is no such host.
        """
        if self.path is not None:
            return True
        if not self.host:
            return False
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as problem:
            raise ConfigError(
                f"got the host {self.host!r} ({problem}); need an address of this machine; type: --host 127.0.0.1"
            ) from None
        return all(ipaddress.ip_address(str(item[4][0]).partition("%")[0]).is_loopback for item in found)

    def __str__(self) -> str:
        """Return the file of a Unix socket, else host and port."""
        return self.netloc if self.path is None else self.path

    @property
    def netloc(self) -> str:
        """Host and port as a URL has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_NEED = "need tcp://HOST:PORT, ws://HOST:PORT or unix:///PATH; type: --uri tcp://127.0.0.1:8765"
