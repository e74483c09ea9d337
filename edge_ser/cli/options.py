"""Options that several commands share."""

from __future__ import annotations

import argparse
import contextlib
import math
from typing import TYPE_CHECKING, TypeAlias

from edge_ser.vad import DETECTORS

if TYPE_CHECKING:
    from edge_ser.recognizer import EmotionRecognizer

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_model` reads."""
    parser.add_argument("--model", metavar="M", help="a bundled model's name or a bundle's folder")
    parser.add_argument("--provider", choices=("auto", "cpu"), default="auto", help="what runs the model")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="processor threads for one utterance")


def load_model(arguments: argparse.Namespace) -> EmotionRecognizer:
    """Return the recognizer that the options ask for.

    Raises:
        EdgeSerError: It cannot be had.
    """
    from edge_ser.recognizer import load

    if arguments.model is None:
        return load(provider=arguments.provider, threads=arguments.threads)
    return load(arguments.model, provider=arguments.provider, threads=arguments.threads)


def add_vad(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the speech detector."""
    parser.add_argument("--vad", choices=DETECTORS, default=DETECTORS[0], help="what finds speech")


def positive_int(text: str) -> int:
    """Return a whole number of 1 or more."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def positive_seconds(text: str) -> float:
    """Return a finite number above 0."""
    return _number(text, math.inf, "no number of seconds above 0")


def share(text: str) -> float:
    """Return a number between 0 and 1, both excluded."""
    return _number(text, 1.0, "no number between 0 and 1")


def _number(text: str, below: float, problem: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < below:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is {problem}")
