"""Gives a graph the output `frames`, from which the runtime judges an utterance again when its words arrive.

    python export/frames.py edge_ser/models/mdat-int8

puts it into a bundle that was pressed before there was such an output. The value is on the graph's way to its answers
already: nothing is added but its name, and no answer changes.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import onnx

from edge_ser.bundle import Bundle, Output
from edge_ser.errors import ConfigError, EdgeSerError
from edge_ser.graph_io import FRAMES_NAME
from export.card import render_card

SPEECH_ENCODER = "/speech/norm/LayerNormalization_output_0"
"""What the students' speech encoder puts out, as the exporter names it: all that their fusion knows of the sound."""


def frames_output(width: int) -> Output:
    """Return the manifest's entry for frames of a width."""
    return Output(FRAMES_NAME, "float32", (1, "frames", width))


def name_frames(model: onnx.ModelProto, value: str, width: int) -> None:
    """Make a value of the graph its output `frames`.

    Args:
        model: The model, changed in place.
        value: Name of the value, of shape (1, frames, width).
        width: Its width.

    Raises:
        ConfigError: The graph computes no such value.
    """
    if not any(value in node.output for node in model.graph.node):
        raise ConfigError(f"the graph computes no '{value}'; need the value that fusion reads; name it in {__file__}")
    for node in model.graph.node:
        node.input[:] = [FRAMES_NAME if name == value else name for name in node.input]
        node.output[:] = [FRAMES_NAME if name == value else name for name in node.output]
    known = [info for info in model.graph.value_info if info.name != value]
    del model.graph.value_info[:]
    model.graph.value_info.extend(known)
    shape = list(frames_output(width).shape)
    model.graph.output.append(onnx.helper.make_tensor_value_info(FRAMES_NAME, onnx.TensorProto.FLOAT, shape))
    onnx.checker.check_model(model)


def add_frames(folder: Path) -> None:
    """Give the graph of a bundle that reads text its frames; its receipt and card tell the graph's new size.

    Raises:
        ConfigError: The bundle has frames already, or its graph computes none.
    """
    bundle = Bundle.open(folder)
    if any(output.name == FRAMES_NAME for output in bundle.manifest.outputs):
        raise ConfigError(f"{folder} has frames already; nothing to do")
    name = bundle.manifest.graphs["model"]
    model = onnx.load_from_string(bundle.read(name))
    # An embedding is the mean and the deviation of the frames.
    width = next(int(output.shape[1]) // 2 for output in bundle.manifest.outputs if output.name == "embedding")
    name_frames(model, SPEECH_ENCODER, width)
    manifest = replace(bundle.manifest, outputs=(*bundle.manifest.outputs, frames_output(width)))
    files: dict[str, bytes | Path] = {listed: bundle.read(listed) for listed in bundle.manifest.files}
    files[name] = graph = model.SerializeToString()
    if "receipt.json" in files:
        receipt = {**json.loads(bundle.read("receipt.json")), "bytes_after": len(graph)}
        files["receipt.json"] = (json.dumps(receipt, indent=1) + "\n").encode()
        files["MODEL_CARD.md"] = render_card(manifest, receipt).encode()
    Bundle.write(folder, manifest, files)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    options = parser.parse_args(argv)
    try:
        add_frames(options.bundle)
    except EdgeSerError as error:
        print(f"frames: {error}", file=sys.stderr)
        return 1
    print(f"{options.bundle}: its utterances can be judged again")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
