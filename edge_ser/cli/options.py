"""Options that several commands share."""

from __future__ import annotations

import argparse
import contextlib
import logging
from typing import TYPE_CHECKING, TypeAlias

from edge_ser.backends import PROVIDERS
from edge_ser.vad import DETECTORS

if TYPE_CHECKING:
    from edge_ser.recognizer import EmotionRecognizer

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_model` reads."""
    parser.add_argument("--model", metavar="M", help="a bundled model's name or a bundle's folder")
    add_provider(parser)
    parser.add_argument("--threads", type=positive_int, metavar="N", help="processor threads for one utterance")


def add_provider(parser: argparse.ArgumentParser) -> None:
    """Add what runs the model."""
    parser.add_argument(
        "--provider",
        choices=PROVIDERS,
        help="what runs the model (default: auto, an engine that is built, else CUDA for a model of floats, else cpu)",
    )
    parser.add_argument(
        "--engine-dir", metavar="DIR", help="where TensorRT engines lie (default: your cache folder; see build_trt.py)"
    )


def load_model(arguments: argparse.Namespace) -> EmotionRecognizer:
    """Return the recognizer that the options ask for.

    Raises:
        EdgeSerError: It cannot be had.
    """
    from edge_ser.recognizer import load

    if arguments.provider is not None:
        # Who asks is told in one line what runs the model, and why.
        logging.getLogger("edge_ser").setLevel(logging.INFO)
    chosen = {
        "provider": arguments.provider or PROVIDERS[0],
        "threads": arguments.threads,
        "engine_dir": arguments.engine_dir,
    }
    return load(**chosen) if arguments.model is None else load(arguments.model, **chosen)


def add_vad(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the speech detector."""
    parser.add_argument("--vad", choices=DETECTORS, default=DETECTORS[0], help="what finds speech")


def add_risk(parser: argparse.ArgumentParser) -> None:
    """Add how often a certain answer may be wrong."""
    parser.add_argument("--risk", type=share, metavar="R", help="accepted share of wrong answers, between 0 and 1")


def positive_int(text: str) -> int:
    """Return a whole number of 1 or more."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def utterance_seconds(text: str) -> float:
    """Return a number from 0.01 to 600."""
    with contextlib.suppress(ValueError):
        if 0.01 <= float(text) <= 600:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.01 to 600")


def share(text: str) -> float:
    """Return a number between 0 and 1, both excluded."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number between 0 and 1")
