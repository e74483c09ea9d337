"""`edge-ser devices`: the microphones of this machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from edge_ser.cli.options import Commands
from edge_ser.cli.tables import add_format, print_json, print_table
from edge_ser.cli.text import report


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("devices", help="list the microphones", description="Lists the microphones.")
    add_format(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the devices that record, the default one marked; return 1 if there is none."""
    from edge_ser.devices import list_devices

    devices = list_devices()
    if arguments.format == "json":
        print_json([asdict(device) for device in devices])
    elif devices:
        rows = [
            ("*" if d.is_default else "", str(d.index), d.name, d.host, str(d.channels), f"{d.sample_rate_hz} Hz")
            for d in devices
        ]
        print_table(("", "N", "NAME", "HOST", "CHANNELS", "RATE"), rows)
    else:
        report("no microphone was found. Plug one in, or read a file: edge-ser listen --input FILE")
    return 0 if devices else 1
