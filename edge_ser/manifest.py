"""The manifest: everything a program must know about a model before it runs it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.calibration import Calibration
from edge_ser.errors import BundleError
from edge_ser.graph_io import UPGRADE, Input, Output
from edge_ser.json_object import JsonObject

FORMAT_VERSION = 1
"""The version that this release reads and writes."""

MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"
HEAD_NAME = "head.npz"
"""File of a delta bundle: the adapted head."""
PACK_NAME = "pack.npz"
"""File of a delta bundle, in the place of the head: a language pack."""

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""What a bundle may be called."""

_WHOLE, _SPLIT = {"model"}, {"speech", "fusion"}
_PRECISIONS = ("fp32", "int8")
_REMEDY = "export the bundle again: python export/to_onnx.py --help"
_NAME_WORDS = "letters, digits, dot, dash and underscore"
_SHA256 = "[0-9a-f]{64}"


@dataclass(frozen=True)
class TrainingCorpus:
    """One corpus that the model learnt from."""

    corpus: str
    """Name."""
    licence: str
    """The corpus's licence."""
    utterances: int
    """Clips used in training."""
    speakers: int
    """Speakers used in training."""


@dataclass(frozen=True)
class Base:
    """The bundle that a delta bundle builds on."""

    name: str
    """A bundled name, or the name of a folder beside the delta bundle's."""
    sha256: str
    """SHA-256 of its manifest file."""


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds and how it is used."""

    name: str
    """Name of the bundle: letters, digits, dot, dash and underscore."""
    system: str
    """The fusion system, such as `mdat`."""
    precision: str
    """`fp32` or `int8`."""
    labels: tuple[str, ...]
    """Emotions, in the order of the logits."""
    min_duration_s: float
    """Seconds; shorter utterances are rejected."""
    max_duration_s: float
    """Seconds; longer utterances are judged in windows."""
    graphs: Mapping[str, str]
    """File of each graph; a student has one, `model`; a large system has `speech`, `fusion` and, where it reads text,
    `text`; a delta bundle none: the graphs are its base's."""
    inputs: tuple[Input, ...]
    """What the graph is told."""
    outputs: tuple[Output, ...]
    """What the graph answers."""
    calibration: Calibration
    """How logits become probabilities and decisions."""
    licence: str
    """Licence of the weights."""
    training_data: tuple[TrainingCorpus, ...]
    """What the weights were learnt from."""
    attributes: tuple[str, ...] = ()
    """Attributes in the order of the output, each in [0, 1]; empty where the system has none."""
    sample_rate_hz: int = SAMPLE_RATE_HZ
    """Hertz."""
    provenance: Mapping[str, object] = field(default_factory=dict)
    """How the weights came to be."""
    metrics: Mapping[str, object] = field(default_factory=dict)
    """What was measured on them."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of every file, by name; `Bundle.write` fills it in."""
    base: Base | None = None
    """The bundle whose graph a delta bundle runs; None where it has its own."""

    def input_of(self, kind: str) -> Input | None:
        """Return the input of a kind, or None where the model has none."""
        return next((item for item in self.inputs if item.kind == kind), None)

    def needed_files(self) -> tuple[str, ...]:
        """Return the names of the files without which the model cannot answer."""
        if self.base is not None:
            return (PACK_NAME if PACK_NAME in self.files else HEAD_NAME,)
        return (*self.graphs.values(), *([TOKENIZER_NAME] if self.input_of("text_ids") else []))

    def to_json(self) -> str:
        """Return the text of the manifest file.

        Raises:
            BundleError: A free field holds what JSON cannot.
        """
        plain = {"format_version": FORMAT_VERSION, **asdict(self), "calibration": self.calibration.to_dict()}
        try:
            return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as problem:
            raise BundleError(f"{self.name}: not JSON: {problem}; need plain, finite data in every field") from None

    @staticmethod
    def from_json(text: bytes, where: str) -> Manifest:
        """Return the manifest that a file holds.

        Args:
            text: The content of the file.
            where: Its path, for messages.

        Raises:
            BundleError: It is no manifest, is from another format version, or does not fit together.
        """
        fields = JsonObject.parse(text, where, _REMEDY, BundleError)
        _check_version(fields)
        manifest = Manifest(
            name=_matching(fields, "name", NAME_PATTERN, _NAME_WORDS),
            system=fields.text("system"),
            precision=_matching(fields, "precision", "|".join(_PRECISIONS), " or ".join(_PRECISIONS)),
            labels=fields.texts("labels", at_least=2),
            attributes=fields.texts("attributes"),
            sample_rate_hz=fields.count("sample_rate_hz"),
            min_duration_s=fields.number("min_duration_s", lambda value: 0 < value <= 60, "above 0 and at most 60"),
            max_duration_s=fields.number("max_duration_s", lambda value: 0.01 <= value <= 600, "from 0.01 to 600"),
            graphs=fields.named_texts("graphs"),
            inputs=tuple(Input.from_json(item) for item in fields.objects("inputs")),
            outputs=tuple(Output.from_json(item) for item in fields.objects("outputs")),
            calibration=Calibration.from_json(fields.nested("calibration")),
            licence=fields.text("licence"),
            training_data=tuple(_read_corpus(item) for item in fields.objects("training_data")),
            provenance=fields.free("provenance"),
            metrics=fields.free("metrics"),
            files=fields.named_texts("files"),
            base=None if fields.value("base") is None else _read_base(fields.nested("base")),
        )
        _check_files(manifest, fields)
        _check_rate_and_durations(manifest, fields)
        _check_inputs(manifest, fields)
        _check_outputs(manifest, fields)
        return manifest


def _check_version(fields: JsonObject) -> None:
    version = fields.count("format_version")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{fields.where}: format version {version} is newer than {FORMAT_VERSION}, the newest known here; {UPGRADE}"
        )
    if version < FORMAT_VERSION:
        fields.fail(f"format version {version} is older than {FORMAT_VERSION}, the oldest known here")


def _matching(fields: JsonObject, key: str, pattern: str, need: str) -> str:
    if not re.fullmatch(pattern, fields.text(key)):
        fields.fail(f"'{key}' is '{fields.text(key)}', need {need}")
    return fields.text(key)


def _read_corpus(fields: JsonObject) -> TrainingCorpus:
    return TrainingCorpus(
        fields.text("corpus"), fields.text("licence"), fields.count("utterances"), fields.count("speakers")
    )


def _read_base(fields: JsonObject) -> Base:
    return Base(
        _matching(fields, "name", NAME_PATTERN, _NAME_WORDS),
        _matching(fields, "sha256", _SHA256, "64 hexadecimal digits"),
    )


def _check_files(manifest: Manifest, fields: JsonObject) -> None:
    for name, sha256 in manifest.files.items():
        check_file_name(name, fields.where)
        if not re.fullmatch(_SHA256, sha256):
            fields.fail(f"the hash of '{name}' is '{sha256[:12]}', need 64 hexadecimal digits")
    if manifest.base is not None:
        if manifest.graphs:
            fields.fail("'graphs' and 'base' both name a graph, need one of them")
        if {HEAD_NAME, PACK_NAME} <= set(manifest.files):
            fields.fail(f"'files' lists both '{HEAD_NAME}' and '{PACK_NAME}', need one of them")
    elif not _WHOLE <= set(manifest.graphs) and not _SPLIT <= set(manifest.graphs):
        fields.fail("'graphs' names no 'model', need the graph file under that key, or 'speech' and 'fusion'")
    elif _SPLIT <= set(manifest.graphs) and ("text" in manifest.graphs) != (manifest.input_of("text_ids") is not None):
        fields.fail("'graphs' and 'inputs' disagree on text, need a graph 'text' and inputs of text, or neither")


def check_file_name(name: str, where: str) -> None:
    """Refuse a file name that could leave the bundle's folder, or that takes the manifest's place.

    Raises:
        BundleError: The name is absolute, climbs, or is no plain relative path.
    """
    path = PurePosixPath(name)
    plain = name and str(path) == name and not re.search(r"[\\:\x00-\x1f]", name)
    if not plain or path.is_absolute() or ".." in path.parts or name in (".", MANIFEST_NAME):
        raise BundleError(
            f"{where}: the file name {name!r} does not stay in the bundle's folder; "
            "need a plain relative name such as 'model.onnx'; do not use this bundle unless you trust its source"
        )


def _check_rate_and_durations(manifest: Manifest, fields: JsonObject) -> None:
    if manifest.sample_rate_hz != SAMPLE_RATE_HZ:
        fields.fail(f"'sample_rate_hz' is {manifest.sample_rate_hz}, need {SAMPLE_RATE_HZ}")
    if manifest.min_duration_s > manifest.max_duration_s:
        fields.fail(f"'min_duration_s' is {manifest.min_duration_s}, above 'max_duration_s', {manifest.max_duration_s}")


def _check_inputs(manifest: Manifest, fields: JsonObject) -> None:
    kinds = [item.kind for item in manifest.inputs]
    names = [item.name for item in manifest.inputs]
    if len(set(kinds)) < len(kinds) or len(set(names)) < len(names):
        fields.fail("'inputs' lists a name or a kind twice")
    if "audio" not in kinds:
        fields.fail("'inputs' has no input of kind 'audio'")
    if ("text_ids" in kinds) != ("text_mask" in kinds):
        fields.fail("'inputs' must have both of 'text_ids' and 'text_mask', or neither")
    down, up = manifest.input_of("pack_down"), manifest.input_of("pack_up")
    if (down is None) != (up is None) or (down is not None and up is not None and down.shape[2] != up.shape[1]):
        fields.fail("'inputs' must have both of 'pack_down' and 'pack_up', of one rank, or neither")


def _check_outputs(manifest: Manifest, fields: JsonObject) -> None:
    need = {"logits": (len(manifest.labels), "labels")}
    if manifest.attributes:
        need["attributes"] = (len(manifest.attributes), "attributes")
    voice = manifest.input_of("voice")
    if voice is not None:
        need["embedding"] = (voice.embedding_size, "numbers in the voice's embedding")
    by_name = {output.name: output for output in manifest.outputs}
    for name, (size, what) in need.items():
        if name not in by_name:
            fields.fail(f"'outputs' has no '{name}', need one of shape [1, {size}]")
        if by_name[name].shape != (1, size):
            fields.fail(f"'{name}' has shape {list(by_name[name].shape)}, need [1, {size}] for {size} {what}")
