"""Sessions without a call (API row S03): a client opens one, and it ends with the client's connection."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from offhook import ids
from offhook.clock import Clock
from offhook.realtime.directory import EngineDirectory
from offhook.realtime.engine import AudioFormat, Engine, EngineStart, EngineUnavailable
from offhook.realtime.engine_at_need import EngineAtNeed
from offhook.realtime.long_text import LongText
from offhook.realtime.outbox import SessionNote
from offhook.realtime.runner import Attachment, Listener, SessionRunner
from offhook.realtime.session import Session
from offhook.realtime.sideband_audio import common_format
from offhook.realtime.transcription_config import TranscriptionConfig, parse_session

__all__ = ["PlainSession", "PlainSessions", "SessionRefused"]

log = logging.getLogger("offhook.realtime")

ENGINE_S = 5.0
"How long an engine may take from the first sound or question to being ready."
NORMAL, GOING_AWAY, INTERNAL_ERROR = 1000, 1001, 1011
"""
Close codes. Clients that reconnect do so after the last two, and a session without a call can be had again: from
another node when this one goes away, from another engine when one failed (API row S16).
"""


class SessionRefused(Exception):  # noqa: N818 - an answer, not a fault
    """There is no place for one more session now."""

    def __init__(self, reason: Literal["draining", "node_full", "project_full"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Place:
    """Whose session it is, for the log."""

    session_id: str
    project_id: str
    model: str


class PlainSession:
    """One client's session. `attach` once; `close` when the client is gone. Ends of itself at its time limit."""

    def __init__(
        self,
        place: Place,
        core: Session,
        engine: Engine,
        *,
        clock: Clock,
        audio_format: Callable[[], AudioFormat],
        engine_s: float,
        on_ended: Callable[[PlainSession], None],
    ) -> None:
        self.place = place
        self._core = core
        self._clock = clock
        self._opened_at = clock.monotonic()
        self._on_ended = on_ended
        self._ending: asyncio.Task[None] | None = None
        self._start = EngineStart(place.session_id, audio_format(), place.model)
        self._ended = False
        self._runner = SessionRunner(
            core,
            EngineAtNeed(engine, audio_format, limit_s=engine_s),
            clock=clock,
            on_note=self._noted,
            on_expired=lambda: self._end("the session hit its maximum duration", NORMAL),
            on_failed=lambda message: self._end("the engine failed", INTERNAL_ERROR),
        )

    async def attach(self, listener: Listener) -> Attachment:
        """Add the client; it gets `session.created` at once."""
        await self._runner.start(self._start)
        return self._runner.attach(listener)

    async def receive(self, frame: str | bytes | LongText, attachment: Attachment) -> None:
        """Take a frame from the client. Returns when the next one may come, which is after a long append is heard."""
        if (reading := attachment.receive(frame)) is not None:
            await reading
        await self._runner.heard()

    async def close(self, reason: str, code: int = NORMAL) -> None:
        """End the session, and free its engine. Safe to call twice."""
        try:
            await self._runner.close(reason, code)
        finally:
            if not self._ended:
                self._ended = True
                self._on_ended(self)
                seconds = round(self._clock.monotonic() - self._opened_at, 1)
                self._log("session.ended", f"session ended: {reason}", seconds=seconds)

    def _end(self, reason: str, code: int) -> None:
        if self._ending is None:
            self._ending = asyncio.create_task(self.close(reason, code))

    def _noted(self, note: SessionNote) -> None:
        if note.kind == "error":
            self._log("session.error", note.title)

    def _log(self, event: str, message: str, **details: object) -> None:
        place = self.place
        names = {"session_id": place.session_id, "project": place.project_id, "model": place.model}
        log.info(message, extra={"event": event, **names, **details})


class PlainSessions:
    """All of a node. They take the engines' slots as calls do, and are bounded as calls are, but counted apart."""

    def __init__(
        self, engines: EngineDirectory, *, clock: Clock, max_sessions: int, session_limit_s: float
    ) -> None:
        self.draining = False
        self._engines = engines
        self._clock = clock
        self._max_sessions = max_sessions
        self._session_limit_s = session_limit_s
        self._live: set[PlainSession] = set()
        self._per_project: Counter[str] = Counter()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def live(self) -> int:
        return len(self._live)

    def open(
        self, project_id: str, model: str, *, project_limit: int = 0, given: Mapping[str, Any] | None = None
    ) -> PlainSession:
        """
        Take a place and an engine's slot; `close` gives them back. `project_limit` 0: the node's.

        `given` is a session object that was judged before, by `parse_session`; without it all is as by default.

        Raises `SessionRefused`, `EngineUnavailable`, and `PhoneCallsOnly` for a model without such sessions.
        """
        self._check_room(project_id, project_limit)
        factory = self._engines.select(model)
        session_id = ids.opaque_id("sess")
        config = parse_session({"type": "realtime", **(given or {})}, model=model)
        audio = (config.session if isinstance(config, TranscriptionConfig) else config).audio
        core = factory.create_session(
            config,
            session_id=session_id,
            audio_format=common_format(audio.input.format.type, audio.output.format.type),
            new_id=ids.opaque_id,
            sip=False,
            max_duration_s=self._session_limit_s,
        )
        assert isinstance(core, Session)
        if not factory.ready:
            raise EngineUnavailable("the engine is not warm")
        session = PlainSession(
            Place(session_id, project_id, model),
            core,
            self._engines.create(factory),
            clock=self._clock,
            audio_format=lambda: core.audio_format,
            engine_s=factory.opening_s or ENGINE_S,
            on_ended=self._ended,
        )
        self._live.add(session)
        self._per_project[project_id] += 1
        self._idle.clear()
        return session

    async def close(self, *, grace_s: float) -> None:
        """Take no new sessions, wait for the present ones up to `grace_s`, then end them."""
        self.draining = True
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning(
                "ending %d sessions: the node shuts down", len(self._live), extra={"event": "node.drain"}
            )
        await asyncio.gather(*(one.close("the node was shut down", GOING_AWAY) for one in list(self._live)))

    def _check_room(self, project_id: str, project_limit: int) -> None:
        if self.draining:
            raise SessionRefused("draining", "The node is draining.")
        if len(self._live) >= self._max_sessions:
            raise SessionRefused("node_full", f"The node is full: {len(self._live)} sessions.")
        if project_limit and self._per_project[project_id] >= project_limit:
            raise SessionRefused("project_full", f"The project is full: {project_limit} sessions.")

    def _ended(self, session: PlainSession) -> None:
        self._live.discard(session)
        project_id = session.place.project_id
        self._per_project[project_id] -= 1
        if not self._per_project[project_id]:
            del self._per_project[project_id]
        if not self._live:
            self._idle.set()
