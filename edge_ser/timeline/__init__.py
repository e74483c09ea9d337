"""A recording as a picture: `follow` hears it, `picture` and `page` draw it (extra `plot`)."""

from edge_ser.timeline.recording import BIN_S, Timeline, follow

__all__ = ["BIN_S", "Timeline", "follow"]
