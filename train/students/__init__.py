"""Students: a system's fusion over small encoders that start from random weights, one file a system."""
