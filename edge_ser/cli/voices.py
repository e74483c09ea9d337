"""`edge-ser voices`: the voices that are kept, and how to be rid of one or make one of several."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from edge_ser.cli.options import Commands
from edge_ser.cli.tables import add_format, print_json, print_table
from edge_ser.cli.text import report

if TYPE_CHECKING:
    from edge_ser.voices import StoredVoice, VoiceStore

_HEAD = ("NAME", "UTTERANCES", "SIZE", "LAST SAVED", "LEARNT AS")


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "voices",
        help="list, delete or merge the voices that are kept",
        description="Lists the voices that `edge-ser listen --voice NAME` keeps, deletes some, or merges several.",
        epilog="They lie in $EDGE_SER_VOICES, else in ~/.local/share/edge-ser/voices: statistics, no audio, no words.",
    )
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--delete", nargs="+", metavar="NAME", help="remove voices for good")
    change.add_argument("--merge", nargs="+", metavar="NAME", help="pool what several voices have heard; needs --into")
    parser.add_argument("--into", metavar="NAME", help="what the merged voice is called: a new name, or one of them")
    add_format(parser)
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """List the voices, or change them."""
    if (arguments.merge is None) != (arguments.into is None):
        arguments.usage_error("--merge A B and --into C need each other")
    from edge_ser.voices import VoiceStore

    store = VoiceStore()
    if arguments.delete is not None:
        names = list(dict.fromkeys(arguments.delete))
        store.delete(*names)
        return _say(arguments.format, {"deleted": names}, [f"deleted {name}" for name in names])
    if arguments.merge is not None:
        return _merge(store, arguments)
    return _list(store, arguments.format)


def _merge(store: VoiceStore, arguments: argparse.Namespace) -> int:
    whole = store.merge(arguments.merge, arguments.into)
    lines = [f"merged {', '.join(arguments.merge)} into {arguments.into}: {whole.utterances} utterances"]
    kept = [name for name in arguments.merge if name != arguments.into]
    lines.append(f"{', '.join(kept)} stayed; to remove: edge-ser voices --delete {' '.join(kept)}")
    result = {"merged": arguments.merge, "into": arguments.into, "utterances": whole.utterances}
    return _say(arguments.format, result, lines)


def _say(format_name: str, result: object, lines: list[str]) -> int:
    if format_name == "json":
        print_json(result)
    else:
        print("\n".join(lines))
    return 0


def _list(store: VoiceStore, format_name: str) -> int:
    voices = store.list()
    if format_name == "json":
        print_json([asdict(voice) for voice in voices])
        return 0
    if not voices:
        report(f"no voice is kept in {store.folder}. Type: edge-ser listen --voice NAME")
        return 0
    print_table(_HEAD, [_row(voice) for voice in voices])
    for voice in voices:
        if voice.problem is not None:
            report(voice.problem)
    return 0


def _row(voice: StoredVoice) -> tuple[str, ...]:
    saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(voice.changed_at))
    heard, space = str(voice.utterances), voice.space or "(nothing heard yet)"
    if voice.problem is not None:
        heard, space = "-", "(damaged)"
    name = "".join(letter if letter.isprintable() else "?" for letter in voice.name)
    return name, heard, f"{voice.size_bytes / 1000:.1f} kB", saved, space
