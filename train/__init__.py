"""The workshop: systems, training and evaluation."""
