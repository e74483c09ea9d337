"""The fusion of each published system, in the size of a device."""
