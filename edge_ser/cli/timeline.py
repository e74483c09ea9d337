"""`edge-ser timeline`: a recording as a picture."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.cli.live_region import LiveRegion
from edge_ser.cli.options import Commands, add_model, add_risk, add_vad, load_model
from edge_ser.cli.text import clock, is_terminal
from edge_ser.errors import ConfigError

if TYPE_CHECKING:
    from edge_ser.timeline import Timeline

_REFRESH_S = 0.2


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "timeline",
        help="draw a recording as a picture",
        description="Draws a recording: waveform, utterances, and the probability of each emotion over time.",
        epilog="example: edge-ser timeline talk.flac --out talk.html",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="an audio file")
    parser.add_argument(
        "--out", metavar="PICTURE", type=_picture_name, required=True, help=f"a name in {', '.join(_WRITERS)}"
    )
    add_model(parser)
    add_vad(parser)
    parser.add_argument("--partials", action="store_true", help="draw how each answer came about, too")
    add_risk(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge a recording and write its picture."""
    from edge_ser.sources import read_blocks
    from edge_ser.timeline import follow
    from edge_ser.timeline.picture import require_matplotlib
    from edge_ser.timeline.words import counts

    # What can fail does so before an hour of audio is judged.
    require_matplotlib()
    _require_writable(arguments.out)
    blocks = read_blocks(arguments.file)
    recognizer = load_model(arguments)
    stream = recognizer.stream(partials=arguments.partials, risk=arguments.risk, vad=arguments.vad)
    with _progress() as watched:
        timeline = follow(stream, watched(blocks), name=arguments.file.name, labels=recognizer.labels)
        picture = _WRITERS[arguments.out.suffix.lower()](timeline)
    _write(arguments.out, picture)
    print(f"{arguments.out}: {counts(timeline)}", flush=True)
    return 0


def _png(timeline: Timeline) -> bytes:
    from edge_ser.timeline.picture import png_picture

    return png_picture(timeline)


def _svg(timeline: Timeline) -> bytes:
    from edge_ser.timeline.picture import svg_picture

    return svg_picture(timeline).encode()


def _html(timeline: Timeline) -> bytes:
    from edge_ser.timeline.page import html_page

    return html_page(timeline).encode()


_WRITERS: Mapping[str, Callable[[Timeline], bytes]] = {".png": _png, ".svg": _svg, ".html": _html}


def _picture_name(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _WRITERS:
        raise argparse.ArgumentTypeError(f"{text!r} does not end in {', '.join(_WRITERS)}")
    return path


def _require_writable(path: Path) -> None:
    folder = path.parent
    if not os.path.isdir(folder):
        raise ConfigError(f"{folder} is no folder, the picture needs one. Make it: mkdir -p {folder}")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(f"{path} is there and is no file, the picture needs another name. Use another --out")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{folder} may not be written to, the picture needs that. Use another --out")


def _write(path: Path, picture: bytes) -> None:
    """Write a file as a whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(picture)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written ({error.strerror}). Use another --out, or free space") from error


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Iterable[NDArray[np.float32]]], Iterator[NDArray[np.float32]]]]:
    """Yield what passes audio on and, if a person reads stderr, says how far it is."""
    if not is_terminal(sys.stderr) or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield iter
        return
    region = LiveRegion(sys.stderr)

    def watched(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        heard_samples, shown_s = 0, 0.0
        for block in blocks:
            heard_samples += block.size
            if time.monotonic() - shown_s > _REFRESH_S:
                shown_s = time.monotonic()
                region.draw([f"{clock(heard_samples / SAMPLE_RATE_HZ)} heard"])
            yield block
        region.draw(["drawing"])

    with region.open():
        yield watched
