"""The experiments that the literature reports, one file each, and what they share."""
