"""Cuts the end out of an ONNX graph: from a value that it computes on the way to what it answers.

An utterance is judged again from the model's own graph, so no second copy of the weights is kept on disk, and its
answer cannot differ from the model's. The `onnx` package is no part of the runtime; the few fields of the format that
matter here are read from its protobuf encoding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from edge_ser.errors import BundleError

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 1, 5, 11, 12, 13
_GRAPH_QUANTIZATION = 14
_NODE_INPUT, _NODE_OUTPUT = 1, 2
_TENSOR_NAME = 8
_VALUE_NAME = 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    number: int
    whole: bytes
    """With its key, as it stands in the message."""
    content: bytes


class _Node(NamedTuple):
    whole: bytes
    inputs: list[str]
    outputs: list[str]


def cut_after(model: bytes, value: str, answers: Sequence[str], sources: Collection[str]) -> bytes:
    """Return the model that computes answers from a value on the way to them.

    Args:
        model: A serialised ONNX model.
        value: Name of the value; it is an output of `model`, and becomes an input.
        answers: Outputs of `model`. Those that need more than `value` are left out, all but the first.
        sources: Inputs of `model` that the new one must not read.

    Raises:
        BundleError: The first answer cannot be computed from `value` without `sources`.
    """
    fields = list(_fields(model))
    graph = [field for outer in fields if outer.number == _MODEL_GRAPH for field in _fields(outer.content)]
    nodes = [_read_node(field) for field in graph if field.number == _GRAPH_NODE]
    producers = {name: place for place, node in enumerate(nodes) for name in node.outputs}
    kept: set[int] = set()
    kept_answers = []
    read: set[str] = set()
    for answer in answers:
        places, names = _needed(nodes, producers, answer, value)
        if not names & set(sources):
            kept |= places
            read |= names
            kept_answers.append(answer)
    if answers[0] not in kept_answers:
        raise BundleError(
            f"the graph's '{answers[0]}' cannot be had from '{value}' alone; need an output '{value}' that carries all "
            "that is heard; export the bundle again: python export/to_onnx.py --help"
        )
    inner = b"".join(_new_graph(graph, nodes, sorted(kept), read, value, kept_answers))
    rest = b"".join(field.whole for field in fields if field.number != _MODEL_GRAPH)
    return rest + _message(_MODEL_GRAPH, inner)


def _needed(nodes: Sequence[_Node], producers: dict[str, int], answer: str, value: str) -> tuple[set[int], set[str]]:
    """Return the nodes between `value` and `answer`, and every name that they read."""
    places: set[int] = set()
    names: set[str] = set()
    waiting = [answer]
    while waiting:
        name = waiting.pop()
        if name == value or name not in producers or producers[name] in places:
            continue
        places.add(producers[name])
        waiting += nodes[producers[name]].inputs
        names.update(nodes[producers[name]].inputs)
    return places, names


def _new_graph(
    graph: Sequence[_Field],
    nodes: Sequence[_Node],
    kept: Sequence[int],
    read: set[str],
    value: str,
    answers: Sequence[str],
) -> Iterator[bytes]:
    yield from (nodes[place].whole for place in kept)
    for field in graph:
        if field.number in (_GRAPH_NODE, _GRAPH_VALUE_INFO, _GRAPH_QUANTIZATION):
            continue
        if field.number == _GRAPH_INITIALIZER:
            if _text(field.content, _TENSOR_NAME) in read:
                yield field.whole
        elif field.number == _GRAPH_INPUT:
            if _text(field.content, _VALUE_NAME) in read:
                yield field.whole
        elif field.number == _GRAPH_OUTPUT:
            name = _text(field.content, _VALUE_NAME)
            if name == value:
                yield _message(_GRAPH_INPUT, field.content)
            elif name in answers:
                yield field.whole
        else:
            yield field.whole


def _read_node(field: _Field) -> _Node:
    inner = list(_fields(field.content))
    return _Node(
        field.whole,
        [_name(item.content) for item in inner if item.number == _NODE_INPUT],
        [_name(item.content) for item in inner if item.number == _NODE_OUTPUT],
    )


def _text(message: bytes, number: int) -> str:
    return next((_name(field.content) for field in _fields(message) if field.number == number), "")


def _name(content: bytes) -> str:
    # ONNX Runtime takes any bytes for the name of a value inside the graph.
    return content.decode(errors="surrogateescape")


def _fields(message: bytes) -> Iterator[_Field]:
    place = 0
    while place < len(message):
        start = place
        key, place = _varint(message, place)
        begin = place
        kind = key & 7
        if kind == _VARINT:
            _, place = _varint(message, place)
        elif kind == _BYTES:
            size, begin = _varint(message, place)
            place = begin + size
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        else:
            raise BundleError(f"the graph holds a field of kind {kind}; need plain ONNX; copy the whole bundle again")
        yield _Field(key >> 3, message[start:place], message[begin:place])


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7


def _message(number: int, content: bytes) -> bytes:
    return _varint_bytes(number << 3 | _BYTES) + _varint_bytes(len(content)) + content


def _varint_bytes(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
