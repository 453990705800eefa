"""Who speaks with one call's caller: an engine that was reserved for it, and its session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from offhook import ids
from offhook.audio.frames import Law
from offhook.clock import Clock
from offhook.realtime.engine import AudioFormat, Engine, EngineFactory, EngineStart
from offhook.realtime.outbox import SessionNote
from offhook.realtime.runner import Playout, SessionRunner
from offhook.realtime.session_config import SessionConfig
from offhook.weak import weakly

from .timeline import Timeline

__all__ = ["CallAgent"]

log = logging.getLogger("offhook.calls")

CLOSING_S = 10.0
"How long an ended call's session may take to finish its events and free its engine."

_SHOWN_OF_ENGINE = ("kind", "upstreams", "brain", "follows_instructions", "note", "vad", "stt", "tts")
"What a tenant may know of the engine; its processes and their memory are the operator's."

_AUDIO_FORMATS: dict[Law, AudioFormat] = {"PCMU": "audio/pcmu", "PCMA": "audio/pcma"}


class CallAgent:
    """
    The agent of a call: nobody before `reserve`, a session from then to `close`, afterwards the memory of one.

    `on_expired` is called when the session has lasted as long as it may, `on_failed` with the reason in words when
    its engine is gone.
    """

    def __init__(
        self,
        call_id: str,
        timeline: Timeline,
        clock: Clock,
        *,
        session_limit_s: float,
        on_expired: Callable[[], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self.runner: SessionRunner | None = None
        "The session, while there is one."
        self.hears_promptly = False
        "Whether it takes the caller's sound as it comes; see `EngineFactory.prompt`."
        self._call_id = call_id
        self._timeline = timeline
        self._clock = clock
        self._session_limit_s = session_limit_s
        self._on_expired = on_expired
        self._on_failed = on_failed
        self._start: EngineStart | None = None
        self._warming: asyncio.Timeout | None = None
        self._engine: dict[str, Any] | None = None
        self._last_session: dict[str, Any] | None = None
        self._usage: Mapping[str, Any] | None = None
        self._is_dismissed = False

    @property
    def is_relayed(self) -> bool:
        """Whether the voice is an upstream's."""
        return self._engine is not None and self._engine["kind"] == "upstream"

    def reserve(
        self,
        factory: EngineFactory,
        engine: Engine,
        config: SessionConfig,
        given: Mapping[str, Any],
        *,
        law: Law,
        playout: Playout,
    ) -> None:
        """Make the session of an engine that `factory` made."""
        described = factory.describe()
        self._engine = {name: described[name] for name in _SHOWN_OF_ENGINE if name in described}
        self.hears_promptly = factory.prompt
        audio_format, session_id = _AUDIO_FORMATS[law], ids.opaque_id("sess")
        session = factory.create_session(
            config,
            session_id=session_id,
            audio_format=audio_format,
            new_id=ids.opaque_id,
            sip=True,
            max_duration_s=self._session_limit_s,
        )
        self.runner = SessionRunner(
            session,
            engine,
            clock=self._clock,
            playout=playout,
            on_note=weakly(self._noted),
            on_expired=weakly(self._session_expired),
            on_failed=weakly(self._engine_failed),
        )
        self._start = EngineStart(session_id, audio_format, config.model or "", given)

    async def warm(self, limit_s: float) -> None:
        """Get the engine ready. Raises `EngineUnavailable`, and `TimeoutError` when it is late or `stop` is called."""
        assert self.runner is not None
        assert self._start is not None
        try:
            async with asyncio.timeout(limit_s) as self._warming:
                await self.runner.start(self._start)
        finally:
            self._warming = None

    def stop(self) -> None:
        """Nobody needs the engine any more: `warm` need not go on."""
        if self._warming is not None and not self._warming.expired():
            self._warming.reschedule(asyncio.get_running_loop().time())

    async def dismiss(self) -> None:
        """Another agent has the call now: nobody is to hear of this one's end."""
        self._is_dismissed = True
        await self.close("failed")

    def speak_first(self) -> None:
        """Ask for a first response, as an app does that greets: nobody else will."""
        if self.runner is not None:
            self.runner.ask({"type": "response.create"})

    def publish(self, event_type: str, **fields: Any) -> None:
        """Send a `call.*` event to the sidebands that asked for those."""
        if self.runner is not None:
            self.runner.publish_extension({"type": event_type, "call_id": self._call_id, **fields})

    def describe(self) -> dict[str, Any]:
        """Return `engine`, `session` and `usage` of `GET /v1/realtime/calls/{id}`."""
        return {
            "engine": self._engine,
            "session": self.runner.session.describe() if self.runner else self._last_session,
            "usage": self._usage,
        }

    async def close(self, reason: str) -> None:
        """Let the session finish its events and free its engine; keep what it was and let its sound go."""
        runner = self.runner
        if runner is None:
            return
        try:
            async with asyncio.timeout(CLOSING_S):
                await runner.close(reason)
        except TimeoutError:
            text = f"the session did not end within {CLOSING_S:g} s"
            log.error(text, extra={"event": "call.session.stuck", "call_id": self._call_id})
        finally:
            # An ended call is kept to be looked at: its story, not its buffers.
            self._last_session = runner.session.describe()
            self.runner = self._start = None

    def _session_expired(self) -> None:
        if not self._is_dismissed:
            self._on_expired()

    def _engine_failed(self, reason: str) -> None:
        if not self._is_dismissed:
            self._on_failed(reason)

    def _noted(self, note: SessionNote) -> None:
        details: dict[str, Any] = dict(note.details)
        # An upstream counts; its responses tell the sum so far.
        self._usage = details.get("usage") or self._usage
        self._timeline.record(note.kind, note.title, **details)
