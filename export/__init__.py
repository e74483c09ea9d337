"""The press: from a checkpoint to a bundle, an INT8 bundle and its card."""
