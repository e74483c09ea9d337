"""The command line: `edge-ser COMMAND`.

Exit status: 0 done, 1 an error that the user can mend (one line on stderr), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import sys
from collections.abc import Sequence

import edge_ser
from edge_ser.cli import adapt, bench, classify, devices, doctor, listen, models, serve, timeline, voices
from edge_ser.cli.text import discard_output, report

_COMMANDS = (listen, classify, timeline, models, voices, devices, doctor, bench, adapt, serve)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The words after `edge-ser`; None takes the process's own.
    """
    _mend_output()
    logging.basicConfig(format="edge-ser: %(message)s", level=logging.WARNING)
    try:
        arguments = _parser().parse_args(argv)
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except edge_ser.EdgeSerError as error:
        report(error)
        return 1
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does.
        discard_output()
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        discard_output()
        report("the disk is full, the output needs space. Free some and run it again.")
        return 1
    return status


def _mend_output() -> None:
    """Let any file name be written, and let output that was closed go nowhere."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    for file in (sys.stdout, sys.stderr):
        if isinstance(file, io.TextIOWrapper):
            file.reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-ser", description="Hears how something is said: one calibrated emotion per utterance, on the device."
    )
    parser.add_argument("--version", action="version", version=f"edge-ser {edge_ser.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
