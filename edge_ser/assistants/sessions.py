"""The sessions of a service: those that are served, and those that wait for their client to come back."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from edge_ser.assistants.closing import CloseCode, Ending, Refused
from edge_ser.assistants.journal import Journal
from edge_ser.assistants.limits import Limits
from edge_ser.assistants.messages import Hello
from edge_ser.assistants.session import Session
from edge_ser.errors import EdgeSerError

if TYPE_CHECKING:
    from edge_ser.recognizer import EmotionRecognizer

_GONE = "this session is over; connect again without 'resume'"


class Sessions:
    """Opens, parks, resumes and ends sessions; each is ended once and its audio told to the journal."""

    def __init__(self, recognizer: EmotionRecognizer, executor: Executor, limits: Limits, journal: Journal) -> None:
        """Look after no session yet.

        Args:
            recognizer: Judges the utterances of all sessions.
            executor: Threads to work on.
            limits: How many sessions, how long.
            journal: Is told when a session begins and ends.
        """
        self._recognizer = recognizer
        self._executor = executor
        self._limits = limits
        self._journal = journal
        self._sessions: dict[str, Session] = {}
        self._parked: dict[str, asyncio.TimerHandle] = {}
        self._ages: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[list[str]]] = set()
        self._count = 0
        self._opening = 0

    async def open(self, hello: Hello) -> Session:
        """Return a new session.

        Raises:
            Refused: There are too many, or what the client asked for is not to be had.
        """
        if len(self._sessions) + self._opening >= self._limits.max_clients and self._parked:
            # Whoever is here now comes before whoever may come back.
            self._expire(next(iter(self._parked)))
        if len(self._sessions) + self._opening >= self._limits.max_clients:
            raise Refused(CloseCode.FULL, f"{self._limits.max_clients} clients are being served; try again later")
        self._count += 1
        number = self._count
        self._opening += 1
        try:
            # Not on the threads that judge: a kept voice may have to wait for another process.
            session = await asyncio.to_thread(Session.open, number, self._recognizer, hello, self._executor)
        except EdgeSerError as problem:
            raise Refused(CloseCode.MALFORMED, str(problem)) from None
        finally:
            self._opening -= 1
        self._sessions[session.id] = session
        too_long = Ending(CloseCode.SESSION_TOO_LONG, "the session has lasted its time; connect again")
        loop = asyncio.get_running_loop()
        self._ages[session.id] = loop.call_later(self._limits.max_session_s, session.interrupt, too_long)
        self._journal.began(session.number)
        return session

    def find(self, hello: Hello) -> Session:
        """Return the session that a client wants to resume; a connection that carries it still is ended.

        Raises:
            Refused: There is none, or its audio had another rate.
        """
        session = self._sessions.get(hello.resume or "")
        if session is None:
            raise Refused(CloseCode.UNKNOWN_SESSION, _GONE)
        if session.rate_hz != hello.rate_hz:
            raise Refused(CloseCode.MALFORMED, f"the session to resume has audio at {session.rate_hz} Hz")
        session.missed(hello.events_seen)
        session.interrupt(Ending(CloseCode.REPLACED, "the session was resumed on another connection"))
        return session

    async def take(self, session: Session) -> None:
        """Wait until no other connection carries a session, and carry it: its `turn` is held then.

        Raises:
            Refused: It has ended meanwhile, or the other connection does not let go.
        """
        try:
            await asyncio.wait_for(session.turn.acquire(), 2 * self._limits.close_s)
        except asyncio.TimeoutError:
            raise Refused(CloseCode.TIMED_OUT, "another connection still holds the session; try again") from None
        if session.id not in self._sessions:
            session.turn.release()
            raise Refused(CloseCode.UNKNOWN_SESSION, _GONE)
        self._unpark(session.id)

    def park(self, session: Session) -> None:
        """Let a session wait for its client."""
        loop = asyncio.get_running_loop()
        self._parked[session.id] = loop.call_later(self._limits.resume_s, self._expire, session.id)

    async def end(self, session: Session, why: str) -> list[str]:
        """Finish a session and return its last messages."""
        return await self._finish(session, why) if self._remove(session) else []

    def interrupt_all(self, ending: Ending) -> None:
        """End every session: those that wait at once, the others by way of their connection."""
        for session_id in list(self._parked):
            self._expire(session_id)
        for session in self._sessions.values():
            session.interrupt(ending)

    async def end_all(self, why: str) -> None:
        """Finish the sessions whose connection could not, and wait for those that are being finished."""
        for session in list(self._sessions.values()):
            await self.end(session, why)
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _expire(self, session_id: str) -> None:
        session = self._sessions[session_id]
        self._remove(session)
        task = asyncio.ensure_future(self._finish(session, "the connection was lost"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _remove(self, session: Session) -> bool:
        self._unpark(session.id)
        if session.id not in self._sessions:
            return False
        del self._sessions[session.id]
        self._ages.pop(session.id).cancel()
        return True

    def _unpark(self, session_id: str) -> None:
        if session_id in self._parked:
            self._parked.pop(session_id).cancel()

    async def _finish(self, session: Session, why: str) -> list[str]:
        messages = await session.finish()
        if session.summary is not None:
            self._journal.ended(session.number, session.summary, why)
        return messages
