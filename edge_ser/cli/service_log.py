"""What `edge-ser serve` tells the person who runs it: who comes, and what became of everybody's audio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from types import TracebackType

from edge_ser.audio import SAMPLE_RATE_HZ
from edge_ser.cli.supervision import ServiceManager
from edge_ser.cli.text import summary
from edge_ser.events import Summary
from edge_ser.ledger import AudioLedger


class ServiceLog:
    """The journal of a service, as lines; when it is left, it says what became of everybody's audio."""

    def __init__(self, model: str, say: Callable[[str], None]) -> None:
        """Begin with nobody.

        Args:
            model: Name of the model that answers.
            say: Takes a line.
        """
        self.shows_page = False
        """Whether to say where the page is."""
        self.page_token: str | None = None
        """The token that the page's address shall carry."""
        self._say = say
        self._clients = 0
        self._total = Summary(model, 0, 0.0, AudioLedger())

    def started(self, where: str) -> None:
        """Say where the service listens, to the service manager, too, where there is one."""
        ServiceManager().ready()
        self._say(f"{self._total.model} listens on {where}; Ctrl-C ends")
        if self.shows_page:
            page = where.replace("ws://", "http://", 1).rpartition("/")[0]
            self._say(f"the page: {page}/" + (f"#token={self.page_token}" if self.page_token else ""))

    def began(self, client: int) -> None:
        """Say that a client is being heard."""
        self._say(f"client {client} is here")

    def ended(self, client: int, summary_event: Summary, why: str) -> None:
        """Say what became of a client's audio, and add it up."""
        self._clients += 1
        self._total = _sum(self._total, summary_event)
        self._say(f"client {client} ({why}): {_text(summary_event)}")

    def __enter__(self) -> ServiceLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._clients:
            clients = "1 client" if self._clients == 1 else f"{self._clients} clients"
            self._say(f"{clients}: {_text(self._total)}")


def _sum(first: Summary, second: Summary) -> Summary:
    counts = {
        field.name: getattr(first.ledger, field.name) + getattr(second.ledger, field.name)
        for field in fields(AudioLedger)
    }
    ledger = AudioLedger(**counts)
    utterances = first.utterances + second.utterances
    return replace(first, utterances=utterances, duration_s=ledger.captured_samples / SAMPLE_RATE_HZ, ledger=ledger)


def _text(event: Summary) -> str:
    return summary(event) + ("" if event.ledger.balances else "; THE LEDGER DOES NOT BALANCE")
