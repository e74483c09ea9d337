"""The press: from a checkpoint to a bundle, an INT8 bundle and its card."""

import edge_ser  # noqa: F401  (first: it keeps ONNX Runtime, which the press imports itself, from sending usage data)
