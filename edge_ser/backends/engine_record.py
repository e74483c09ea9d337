"""What an engine is for and what was seen of it: the JSON file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from edge_ser.errors import EngineMismatchError
from edge_ser.json_object import JsonObject

FORMAT_VERSION = 1


@dataclass(frozen=True)
class EngineKey:
    """What an engine is bound to, and its file's name."""

    bundle: str
    """The bundle's name."""
    gpu: str
    """`Gpu.slug`."""
    tensorrt: str
    """Version of TensorRT."""
    precision: str
    """`int8`, `fp16` or `fp32`."""

    @property
    def file_name(self) -> str:
        """Such as `mdat-int8-orin-trt10.3.0-int8.engine`."""
        return f"{self.bundle}-{self.gpu}-trt{self.tensorrt}-{self.precision}.engine"


@dataclass(frozen=True)
class EngineRecord:
    """What is known of an engine."""

    key: EngineKey
    """What it is bound to."""
    gpu_name: str
    """The GPU as its driver names it."""
    capability: str
    """The GPU's compute capability."""
    graph_sha256: str
    """SHA-256 of the bundle's graph that it was built from."""
    engine_sha256: str
    """SHA-256 of the engine."""
    receipt: Mapping[str, object] = field(default_factory=dict)
    """What the build measured: profiles, layers by type, parity."""

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: bytes, where: str) -> EngineRecord:
        """Return the record that a file holds.

        Raises:
            EngineMismatchError: It is none, or from another release.
        """
        remedy = "build the engine again: python export/build_trt.py --help"
        fields = JsonObject.parse(text, where, remedy, EngineMismatchError)
        if fields.count("format_version") != FORMAT_VERSION:
            fields.fail(f"'format_version' is {fields.count('format_version')}, need {FORMAT_VERSION}")
        key = fields.nested("key")
        return EngineRecord(
            EngineKey(key.text("bundle"), key.text("gpu"), key.text("tensorrt"), key.text("precision")),
            fields.text("gpu_name"),
            fields.text("capability"),
            fields.text("graph_sha256"),
            fields.text("engine_sha256"),
            fields.free("receipt"),
        )
