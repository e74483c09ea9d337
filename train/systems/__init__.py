"""The fusion systems, one readable file each."""
