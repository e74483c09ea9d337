"""The page that `edge-ser serve --page` shows: a few files, sent as they lie here, and the headers that guard them."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

from edge_ser.assistants.notice import NOTICE

_SCRIPTS = ("app.js", "capture.js", "outbox.js", "ribbon.js", "socket.js", "view.js", "words.js", "worklet.js")
_TYPES = {**dict.fromkeys(_SCRIPTS, "text/javascript"), "page.css": "text/css", "icon.svg": "image/svg+xml"}

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'",
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }
)
"""Go with every file of the page: nothing is loaded from elsewhere, nobody frames it, nothing in it is evaluated."""


@dataclass(frozen=True)
class PageFile:
    """A file of the page, ready to be sent."""

    content_type: str
    """Value of the header Content-Type."""
    body: bytes
    """Bytes; the content."""


def page_file(path: str) -> PageFile | None:
    """Return what lies at a path of the page, None where there is nothing.

    Args:
        path: From the request, `/` for the page itself; what follows a `?` is ignored.
    """
    name = path.partition("?")[0].removeprefix("/")
    folder = files(__name__)
    if name == "":
        text = folder.joinpath("index.html").read_text(encoding="utf-8").replace("{notice}", html.escape(NOTICE))
        return PageFile("text/html; charset=utf-8", text.encode())
    if name not in _TYPES:
        return None
    return PageFile(f"{_TYPES[name]}; charset=utf-8", folder.joinpath(name).read_bytes())
