"""Who may connect: the token, and which web pages."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import stat
from collections.abc import Collection
from urllib.parse import urlsplit

from edge_ser.errors import ConfigError
from edge_ser.private_file import read_regular_file

SHORTEST_TOKEN = 16
_LONGEST_TOKEN = 1024
_MAKE_ONE = '(umask 077; python3 -c "import secrets; print(secrets.token_urlsafe())" > {})'

_log = logging.getLogger("edge_ser")


def read_token(path: str | os.PathLike[str]) -> str:
    """Return the token that a file holds, space and line ends around it taken off.

    Raises:
        ConfigError: The file cannot be read, or holds no token: 16 to 1024 printable ASCII characters without space.
    """
    try:
        token = read_regular_file(path, _LONGEST_TOKEN + 8).decode("ascii", errors="replace").strip()
        is_private = not stat.S_IMODE(os.stat(path).st_mode) & 0o077
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise ConfigError(
            f"cannot read a token from {path} ({reason}); need a file that holds one; "
            f"make one: {_MAKE_ONE.format(path)}"
        ) from None
    # The token itself is in no message: messages are logged.
    if not (SHORTEST_TOKEN <= len(token) <= _LONGEST_TOKEN and all("!" <= letter <= "~" for letter in token)):
        raise ConfigError(
            f"{path} holds no token; need {SHORTEST_TOKEN} to {_LONGEST_TOKEN} printable ASCII characters that nobody "
            f"guesses; make one: {_MAKE_ONE.format(path)}"
        )
    if not is_private:
        _log.warning("other users can read the token in %s; type: chmod 600 %s", path, path)
    return token


def is_token(given: str | None, wanted: str) -> bool:
    """Return whether a client gave the right token; the time it takes says nothing about the wanted one."""
    return hmac.compare_digest((given or "").encode(), wanted.encode())


def may_connect(host: str | None, origin: str | None, is_private: bool, allowed_origins: Collection[str] = ()) -> bool:
    """Return whether a request comes from no web page, or from one that may use the service.

    Args:
        host: Its `Host` header.
        origin: Its `Origin` header; only browsers send one.
        is_private: Whether the service is for this machine only. A foreign page whose name was made to lead here (DNS
            rebinding) gives itself away by the host.
        allowed_origins: Other pages that may, as `https://assistant.example`; a proxy may serve ours under such a name.
    """
    if origin is not None and origin in allowed_origins:
        return True
    name = (host or "").lower()
    if is_private and not _is_this_machine(name) and all(_netloc(allowed) != name for allowed in allowed_origins):
        return False
    if origin is None:
        return True
    return _netloc(origin) == name


def checked_origin(url: str) -> str:
    """Return the origin of a web page as browsers send it.

    Raises:
        ConfigError: It is no such origin, and no page would ever match it.
    """
    origin = url.lower().removesuffix("/")
    if origin not in (f"http://{_netloc(origin)}", f"https://{_netloc(origin)}"):
        raise ConfigError(
            f"got {url!r} for a web page; need its scheme and host and nothing else; type, for example, "
            "--allow-origin https://assistant.example"
        )
    return origin


def _netloc(origin: str) -> str | None:
    """Return the host and port of a page's origin, None where it has none."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") and parts.netloc else None


def _is_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
