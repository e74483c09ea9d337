"""What a card says about a bundle itself: architecture, inputs, data, quantisation, voices, how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_ser.bundle import Manifest
from export.card_text import section, table

SYSTEMS = {
    "mdat": "Graph attention over words and speech frames, co-attention between the two, one transformer layer each.",
    "hump-cat": "Cross-attention transformers over two depths of the speech encoder, MFCCs and prosody; the nearest "
    "class by cosine.",
    "camulenet": "Co-attention: spectrogram and MFCCs of the whole utterance weigh the speech encoder's frames; gender "
    "was a second task in training and is not part of this model.",
    "mha": "Self-attention over speech frames and over words; mean and deviation of the two modalities are classified.",
    "lora": "Attentive statistics over the speech frames; low-rank adapters for further languages.",
}
"""The fusion of each published system, in a sentence."""
_KINDS = {
    "audio": "the utterance, mono, 16 kHz, in [-1, 1]",
    "mfcc": "cepstral coefficients, computed by the runtime",
    "spectrogram": "a picture of the utterance, computed by the runtime",
    "prosody": "prosody features of the utterance, computed by the runtime",
    "text_ids": "tokens of a transcript; optional",
    "text_mask": "1 for each token, all zeros for no transcript",
    "voice": "a voice profile: utterances heard, mean and deviation of their embeddings; zeros for a fresh one",
    "pack_down": "a language pack, its matrix down to the rank; zeros for none",
    "pack_up": "the same pack's matrix up again; zeros for none",
}
_RESULTS = {
    "logits": "one a label",
    "embedding": "what a voice profile learns from",
    "frames": "what is kept to judge the utterance again when its words arrive",
    "attributes": "in [0, 1]",
}


def head(manifest: Manifest) -> str:
    """Return what the model is."""
    labels = ", ".join(manifest.labels)
    return (
        f"# {manifest.name}\n\nHears how an utterance is said: {labels}. It takes the raw sound of one utterance of "
        f"{manifest.min_duration_s:g} to {manifest.max_duration_s:g} s ({manifest.sample_rate_hz} Hz, mono) and, where "
        "there is one, the voice profile of its speaker, and answers with calibrated probabilities. "
        f"System `{manifest.system}`, {manifest.precision}, {_parameters(manifest)} parameters. "
        f"Licence: {manifest.licence}."
    )


def _parameters(manifest: Manifest) -> str:
    parameters = manifest.provenance.get("parameters")
    return f"{parameters:,}" if isinstance(parameters, int) else "an unknown number of"


def architecture(manifest: Manifest) -> str:
    """Return how it is built, as far as the manifest tells."""
    parts, settings = manifest.provenance.get("parameters_by_part"), manifest.provenance.get("settings")
    model = settings.get("model") if isinstance(settings, Mapping) else None
    sizes = ", ".join(f"{name} {value}" for name, value in model.items()) if isinstance(model, Mapping) else ""
    counted = parts.items() if isinstance(parts, Mapping) else ()
    front_end = (
        "The graph begins with the waveform: its front end is part of it. It was trained from random weights; no "
        "pretrained weight is in it."
    )
    return section(
        "Architecture",
        SYSTEMS.get(manifest.system, ""),
        front_end if "model" in manifest.graphs else _published(manifest),
        _hearing(model) if isinstance(model, Mapping) else "",
        table(["part", "parameters"], [[name, f"{count:,}" if count else "none learnt"] for name, count in counted]),
        f"Sizes: {sizes}." if sizes else "",
    )


def _hearing(model: Mapping[str, Any]) -> str:
    """Return how often the encoder goes over an utterance, where it is more than once."""
    passes = int(model.get("speech_passes", 1))
    return f"Frames go through the encoder's transformer layers {passes} times." if passes > 1 else ""


def _published(manifest: Manifest) -> str:
    weights = manifest.provenance.get("weights")
    return (
        f"The system at the size of `{manifest.provenance.get('settings')}`, as {len(manifest.graphs)} graphs: "
        f"{', '.join(manifest.graphs)}. "
        + ("All of its weights are random: it knows nothing." if weights == "random" else f"Its weights: `{weights}`.")
    )


def interface(manifest: Manifest) -> str:
    """Return inputs and outputs of the graph."""
    rows = [[f"in: {i.name}", i.dtype, _shape(i.shape), _KINDS.get(i.kind, i.kind)] for i in manifest.inputs]
    rows += [[f"out: {o.name}", o.dtype, _shape(o.shape), _RESULTS.get(o.name, "")] for o in manifest.outputs]
    return section("Inputs and outputs", table(["name", "type", "shape", "what"], rows))


def _shape(sizes: Sequence[int | str]) -> str:
    return f"({', '.join(str(size) for size in sizes)})"


def training_data(manifest: Manifest) -> str:
    """Return the bill of materials."""
    rows = [[item.corpus, item.utterances, item.speakers or "-", item.licence] for item in manifest.training_data]
    licence = f"Licence of the model: {manifest.licence}."
    return section("Training data", table(["material", "items", "speakers", "licence"], rows), licence)


def quantisation(receipt: Mapping[str, Any]) -> str:
    """Return what INT8 did."""
    if not receipt:
        return ""
    lengths = ", ".join(f"{seconds} s {value:.4f}" for seconds, value in receipt["cosine"].items())
    kept = [row["name"] for row in receipt["blocks"] if row["precision"] != "int8"]
    shifts = receipt.get("probability_shift")
    lines = [
        f"- {_accuracy(receipt['ua_before'], receipt['ua_after'])}the same answer for {receipt['agreement']:.1%}.",
        f"- Smallest cosine between embeddings: {lengths}.",
        f"- Mean change of a probability, words and voices included: at most {max(shifts.values()):.4f} at any of "
        "these lengths."
        if shifts
        else "",
        f"- Products that ONNX Runtime runs in integers: {receipt['integer_operators']}; in floats: "
        f"{receipt['float_operators']}. Blocks sent back to float: {', '.join(kept) or 'none'}.",
        f"- {receipt['bytes_before'] / 1e6:.2f} MB before, {receipt['bytes_after'] / 1e6:.2f} MB after; "
        f"{receipt['speed_ratio']:.2f} times as fast on one thread ({receipt['environment']['processor']}).",
    ]
    return section("INT8 against fp32", "\n".join(line for line in lines if line))


def _accuracy(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    if before is None or after is None:
        return "UA: not measured; "
    return f"UA on {after['clips']} validation clips: {before['ua']:.4f} before, {after['ua']:.4f} after; "


def voice(manifest: Manifest) -> str:
    """Return what it does with a voice."""
    item = manifest.input_of("voice")
    if item is None:
        return section("What it does with a voice", "Nothing: it has no input for one.")
    return section(
        "What it does with a voice",
        f"Each utterance leaves an embedding of {item.embedding_size} numbers. A voice profile keeps how many "
        "utterances it heard, their mean and their deviation: no audio, no words, no labels, under 10 kB. The next "
        "utterance is judged in its light, and only then teaches it. A fresh profile gives what the model gives "
        f"without one. Profiles belong to the embedding space `{item.space}`: a model of another space refuses them. "
        "A profile is data about a person: it stays on the device, and whoever keeps one should ask that person.",
    )


def commands(manifest: Manifest) -> str:
    """Return the commands that made it."""
    if "model" not in manifest.graphs:
        return _published_commands(manifest)
    checkpoint = manifest.name.removesuffix("-int8")
    made = manifest.provenance.get("settings")
    encoder = made.get("encoder") if isinstance(made, Mapping) else None
    lines: list[str] = []
    if isinstance(encoder, Mapping):
        tier = str(encoder["tier"])
        suffix = "" if tier == "clean" else f"-{tier}"
        lines = _training(suffix, int(encoder.get("passes", 1)))
        # The folder says the tier; only the bundle's name says it again.
        checkpoint = f"{tier}/{checkpoint.removesuffix(suffix)}"
    built = f"build/{manifest.name.removesuffix('-int8')}"
    results = f"benchmarks/results/{manifest.name}.json"
    lines += [
        f"python export/to_onnx.py train/checkpoints/{checkpoint}.safetensors --out {built}",
        f"python export/quantize.py {built} --calibration DATA --out build/{manifest.name}",
        f"python -m train.evaluate build/{manifest.name} --data DATA --out {results}",
        f"python export/card.py build/{manifest.name} --metrics {results}",
    ]
    return section("How it was made", "\n".join(["```", *lines, "```"]))


def _training(suffix: str, passes: int) -> list[str]:
    """Return the commands of both stages; each encoder begins with the weights of the one before it."""
    last = "encoder-passes" if passes > 1 else "encoder"
    encoders = ["encoder", "encoder-longer", "encoder-cut", "encoder-voices"]
    encoders += [*([last] if passes > 1 else []), *([f"{last}{suffix}"] if suffix else [])]
    lines, spoken = ["python -m train.speak --out runs/spoken"], "runs/spoken"
    for before, name in zip(["", *encoders], encoders, strict=False):
        start = f" --start runs/{before}" if before else ""
        if name == "encoder-voices":
            lines += ['pip install pyworld "setuptools<81"', *_voices(spoken, "runs/spoken-voices", "")]
            spoken = "runs/spoken-voices"
        elif suffix and name == encoders[-1]:
            lines += _voices(spoken, f"runs/spoken{suffix}", f" --settings train/configs/students/{name}.toml")
            spoken = f"runs/spoken{suffix}"
        lines.append(f"{_distil(name, spoken)}{start} --run runs/{name}")
    students = f"students{suffix}"
    lines.append(f"{_distil(students, spoken)} --encoder runs/{encoders[-1]} --run runs/{students}")
    return [*lines, f"python -m train.keep runs/{students}"]


def _distil(settings: str, spoken: str) -> str:
    return f"python -m train.distill train/configs/students/{settings}.toml --teacher TEACHER --spoken {spoken}"


def _voices(before: str, folder: str, settings: str) -> list[str]:
    """Return what makes voices in a folder of their own: earlier stages must not hear them, nor another tier."""
    return [f"cp -r {before} {folder}", f"python -m train.voices{settings} --out {folder}"]


def _published_commands(manifest: Manifest) -> str:
    settings, weights = (manifest.provenance.get(key) for key in ("settings", "weights"))
    built = f"build/{manifest.name.removesuffix('-int8')}"
    given = "--random" if weights == "random" else f"--weights {weights}"
    lines = [f"python export/to_onnx.py train/configs/{settings} {given} --out {built}"]
    if manifest.precision == "int8":
        lines.append(f"python export/quantize.py {built} --out build/{manifest.name}")
    return section("How it was made", "\n".join(["```", *lines, "```"]))


def pictures(names: Sequence[str]) -> str:
    """Return links to pictures that lie beside the card."""
    return section("Pictures", *(f"![{name.rpartition('.')[0].replace('-', ' ')}]({name})" for name in names))
