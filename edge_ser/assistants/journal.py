"""What a service tells the person who runs it."""

from __future__ import annotations

from typing import Protocol

from edge_ser.events import Summary


class Journal(Protocol):
    """Takes down when clients come and go; it never hears a token or a session's id."""

    def started(self, where: str) -> None:
        """Note that the service takes clients.

        Args:
            where: The address to connect to, with the port that was given where any was asked for.
        """

    def began(self, client: int) -> None:
        """Note that a client begins to be heard.

        Args:
            client: Its number, from 1.
        """

    def ended(self, client: int, summary_event: Summary, why: str) -> None:
        """Note what became of a client's audio; it comes once for each that began.

        Args:
            client: Its number, from 1.
            summary_event: The last event of its stream.
            why: What ended it, in words.
        """
