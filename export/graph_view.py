"""Questions about an ONNX graph: who makes a value, and what is constant."""

from __future__ import annotations

from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


class GraphView:
    """Looks at a graph; to be made anew after a change."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        """Look at `graph`."""
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {output: node for node in graph.node for output in node.output}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that computes a value; None for an input or a constant."""
        return None if name in self._constants else self._producers.get(name)

    def comes_from(self, name: str, op_type: str) -> bool:
        """Return whether a node of this type computes a value."""
        node = self.producer(name)
        return node is not None and node.op_type == op_type

    def is_constant(self, name: str) -> bool:
        """Return whether a value is stored in the graph."""
        return name in self._constants

    def is_weight(self, name: str) -> bool:
        """Return whether a value is stored in the graph, plainly or behind a DequantizeLinear or a whole pair."""
        node = self.producer(name)
        while node is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            name = node.input[0]
            node = self.producer(name)
        return self.is_constant(name)

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a stored value, or None where it is computed."""
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def element_type(self, name: str) -> int:
        """Return the ONNX type of a stored value; UNDEFINED where it is computed."""
        tensor = self._constants.get(name)
        return int(onnx.TensorProto.UNDEFINED) if tensor is None else int(tensor.data_type)

    def rank(self, name: str) -> int:
        """Return how many axes a stored value has; 0 where it is computed."""
        tensor = self._constants.get(name)
        return 0 if tensor is None else len(tensor.dims)
