"""A student on disk: its own weights, and beside them the encoder's, which the students of a tier share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_ser.errors import ConfigError
from train.checkpoint import read_checkpoint, save_checkpoint
from train.students.config import StudentConfig
from train.students.student import Student

OPINION = "opinion."
"""What the encoder's checkpoint holds beside the encoder: the first opinion that it guesses."""
_ENCODER = "speech."
_TRAINING_ONLY = ("fusion.gender.",)


def save_student(path: Path, student: Student, encoder: Path, header: Mapping[str, object]) -> None:
    """Write a student in half precision, without the encoder's weights and what only training needs.

    Args:
        path: The checkpoint.
        student: Whose weights.
        encoder: The encoder's checkpoint; it lies in the same folder when the student is read.
        header: What is to be known about it; `name`, `tier`, `licence`, `training_data` among it.
    """
    own = {
        name: value.half() if value.is_floating_point() else value
        for name, value in student.state_dict().items()
        if not name.startswith((_ENCODER, *_TRAINING_ONLY))
    }
    digest = hashlib.sha256(encoder.read_bytes()).hexdigest()
    save_checkpoint(path, own, {**header, "encoder": encoder.name, "encoder_sha256": digest})


def read_student(path: Path) -> tuple[Student, dict[str, Any]]:
    """Return a student, ready for inference, and its header.

    Raises:
        ConfigError: The checkpoint or its encoder is missing, or they do not belong together.
    """
    tensors, plain = read_checkpoint(path)
    header: dict[str, Any] = dict(plain)
    if "encoder" not in header:
        raise ConfigError(f"{path} is no student; need a checkpoint that train.distill wrote")
    encoder = path.parent / str(header["encoder"])
    heard, _ = read_checkpoint(encoder)
    if hashlib.sha256(encoder.read_bytes()).hexdigest() != header["encoder_sha256"]:
        raise ConfigError(f"{encoder} is not the encoder that {path.name} was trained over; keep both of one run")
    student = Student(StudentConfig(**header["settings"]["model"]))
    tensors |= {_ENCODER + name: value for name, value in heard.items() if not name.startswith(OPINION)}
    missing, unknown = student.load_state_dict(tensors, strict=False)
    lacking = [name for name in missing if not name.startswith(_TRAINING_ONLY)]
    if lacking or unknown:
        raise ConfigError(f"{path} lacks {lacking[:3]} and has {unknown[:3]} beside; need a checkpoint of this version")
    header["checkpoint_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    for parameter in student.parameters():
        parameter.requires_grad_(False)
    return student.eval(), header
