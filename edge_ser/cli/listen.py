"""`edge-ser listen`: a microphone, a file or a pipe, judged utterance by utterance."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_ser.cli.display import open_display, tapped
from edge_ser.cli.interruption import Interruption
from edge_ser.cli.options import Commands, add_model, add_risk, add_vad, load_model
from edge_ser.cli.supervision import supervised
from edge_ser.cli.text import is_terminal, report
from edge_ser.cli.voice_saving import VoiceSaving, open_voice
from edge_ser.errors import ConfigError
from edge_ser.events import DeviceLost, DeviceRestored, Overflow

if TYPE_CHECKING:
    from edge_ser.microphone import Microphone

Chunks: TypeAlias = "Iterable[NDArray[np.float32] | Overflow | DeviceLost | DeviceRestored]"


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "listen",
        help="listen to a microphone, a file or a pipe",
        description="Listens, and says how each utterance was said. Ctrl-C ends it.",
        epilog="example: arecord -q -t raw -f S16_LE -r 16000 -c 1 | edge-ser listen --input -",
    )
    add_model(parser)
    parser.add_argument("--input", metavar="FILE|-", help="a file, or - for raw s16le 16 kHz mono on stdin")
    parser.add_argument("--device", metavar="D", help="a microphone's number or part of its name; see edge-ser devices")
    parser.add_argument(
        "--format", choices=("auto", "text", "jsonl"), default="auto", help="auto: text on a terminal, else JSON lines"
    )
    parser.add_argument("--pace", choices=("fast", "realtime"), help="how fast --input is read (default: fast)")
    add_vad(parser)
    parser.add_argument("--partials", action="store_true", help="answer while the speaker still talks, too")
    add_risk(parser)
    parser.add_argument("--voice", metavar="NAME", help="learn who speaks, and keep it; see edge-ser voices")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Listen until the audio ends or a signal comes; return 1 if the voice could not be saved at the end."""
    if arguments.input is None and arguments.pace is not None:
        arguments.usage_error("--pace needs --input")
    if arguments.input is not None and arguments.device is not None:
        arguments.usage_error("--device and --input exclude each other")
    file_chunks = _open_input(arguments) if arguments.input is not None else None
    with contextlib.ExitStack() as stack:
        # From here on, so that a signal during loading ends as one during listening does.
        interruption = stack.enter_context(Interruption())
        recognizer = load_model(arguments)
        voice = open_voice(arguments.voice, recognizer) if arguments.voice is not None else None
        stream = recognizer.stream(
            voice=None if voice is None else voice.profile,
            partials=arguments.partials,
            risk=arguments.risk,
            vad=arguments.vad,
        )
        saving = stack.enter_context(VoiceSaving(voice, stream))
        chunks = file_chunks
        if chunks is None:
            chunks = microphone = stack.enter_context(_open_microphone(arguments.device))
            interruption.ends(microphone.stop)
        display = stack.enter_context(open_display(arguments.format, recognizer.labels, lambda: stream.ledger))
        for event in stream.listen(tapped(supervised(interruption.guard(chunks)), display)):
            display.show(event)
            saving.follow()
    return 1 if saving.has_failed else 0


def _open_input(arguments: argparse.Namespace) -> Chunks:
    from edge_ser.sources import paced, pcm_blocks, read_blocks

    if arguments.input != "-":
        blocks = read_blocks(arguments.input)
    elif sys.stdin is None or is_terminal(sys.stdin):
        raise ConfigError(
            f"stdin is {'closed' if sys.stdin is None else 'a terminal'}, raw s16le 16 kHz mono audio is needed there. "
            "Type: arecord -q -t raw -f S16_LE -r 16000 -c 1 | edge-ser listen --input -"
        )
    else:
        # Unbuffered, so that live audio is judged as it arrives.
        blocks = pcm_blocks(open(sys.stdin.fileno(), "rb", buffering=0, closefd=False))
    return paced(blocks) if arguments.pace == "realtime" else blocks


def _open_microphone(wanted: str | None) -> Microphone:
    from edge_ser.microphone import Microphone

    device = int(wanted) if wanted is not None and wanted.isdecimal() else wanted
    microphone = Microphone(device).open()
    if is_terminal(sys.stderr):
        report(f"listening to {microphone.name}; Ctrl-C ends")
    return microphone
