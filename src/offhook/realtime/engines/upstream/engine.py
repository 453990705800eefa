"""The engine whose voice is a hosted Realtime API: the phone leg is ours, the model is elsewhere."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from offhook.realtime.core import SessionCore
from offhook.realtime.engine import (
    AudioFormat,
    EngineCommand,
    EngineEvent,
    EngineFailed,
    EngineStart,
    EngineUnavailable,
    KeepUpstream,
    PauseUpstream,
    PhoneCallsOnly,
    ReopenUpstream,
    ResumeUpstream,
    SendUpstream,
    UpstreamEvent,
    UpstreamLost,
    UpstreamNote,
    UpstreamOpened,
    UpstreamUnavailable,
)
from offhook.realtime.mcp import McpSecrets
from offhook.realtime.relay import Relay
from offhook.realtime.relay_hold import HoldSentence
from offhook.realtime.session_config import SessionConfig
from offhook.realtime.sideband_audio import AudioConverter
from offhook.realtime.transcription_config import TranscriptionConfig

from .audio import DeltaAudio
from .connection import MAX_AUDIO, Connection, Refused, open_connection, trust
from .failover import Failover
from .target import Upstream
from .wire import replayed

__all__ = ["UpstreamEngine", "UpstreamFactory"]


class UpstreamEngine:
    """One call's connection to the first upstream of the list that takes it."""

    def __init__(self, upstreams: Sequence[Upstream], *, tls: Mapping[str, ssl.SSLContext | None]) -> None:
        self._upstreams = upstreams
        self._failover = Failover([upstream.name for upstream in upstreams])
        self._tls = tls
        self._emit: Callable[[EngineEvent], None] = lambda event: None
        self._start: EngineStart | None = None
        self._connection: Connection | None = None
        self._opening: asyncio.Task[None] | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._up: AudioConverter | None = None
        self._down: DeltaAudio | None = None
        self._dropping = False
        self._secrets = McpSecrets()
        self._waiting: deque[bytes] | None = None
        "The caller's last frames, while a connection is opened that has not heard them."
        self._unheard = 0
        self._letting_go: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self, start: EngineStart, emit: Callable[[EngineEvent], None]) -> None:
        self._start, self._emit = start, emit
        self._secrets.learn(start.session)
        self._opening = asyncio.create_task(self._open(start.session, ()))
        try:
            await self._opening
        except asyncio.CancelledError:
            if self._closed:
                raise EngineUnavailable("the call ended while its upstream was opened") from None
            raise

    def hear(self, audio: bytes) -> None:
        if self._waiting is not None:
            self._unheard += self._connection is None and len(self._waiting) == MAX_AUDIO
            self._waiting.append(audio)
        connection = self._connection
        if connection is None or self._up is None:
            return
        converted = self._up.process(audio)
        if converted and connection.append(converted) != self._dropping:
            self._dropping = not self._dropping
            self._say_dropping(connection)

    def handle(self, command: EngineCommand) -> None:
        match command:
            case SendUpstream():
                self._secrets.learn(command.event.get("session") or command.event.get("response"))
                if self._connection is not None:
                    self._connection.send(command.event)
            case ReopenUpstream():
                if self._reopening is not None:
                    self._reopening.cancel()
                self._waiting = deque(maxlen=MAX_AUDIO)
                self._unheard = 0
                self._reopening = asyncio.create_task(self._reopen(command))
            case KeepUpstream() if self._reopening is not None and self._connection is not None:
                self._reopening.cancel()
                self._waiting = None
            case PauseUpstream() if self._connection is not None:
                self._connection.pause()
            case ResumeUpstream() if self._connection is not None:
                self._connection.resume()

    async def close(self) -> None:
        self._closed = True
        self._emit = lambda event: None
        tasks = [task for task in (self._opening, self._reopening) if task is not None]
        for task in tasks:
            task.cancel()
        tasks += self._letting_go
        await asyncio.gather(*tasks, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    # Opening.

    async def _open(self, session: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> None:
        """Try the list. Raises `EngineUnavailable` when nobody takes the call."""
        refusals: list[str] = []
        for index in self._failover.attempts():
            upstream = self._upstreams[index]
            try:
                connection = await self._try(upstream, session)
            except Refused as refused:
                said = f"{upstream.name}: {self._secrets.hide(str(refused))}"
                refusals.append(said)
                self._emit(UpstreamNote(said, {"refused": refused.kind}))
                continue
            if self._closed:
                await connection.close()
                return
            self._failover.opened(index)
            self._use(connection, items)
            return
        raise UpstreamUnavailable(f"no upstream took the call. {'; '.join(refusals)}")

    async def _try(self, upstream: Upstream, session: Mapping[str, Any]) -> Connection:
        assert self._start is not None
        ours = self._start.audio_format
        formats: list[AudioFormat] = [ours] if upstream.audio == "auto" else []
        if ours != "audio/pcm":
            formats.append("audio/pcm")
        return await open_connection(
            upstream,
            model=self._start.model,
            given=session,
            formats=formats or ["audio/pcm"],
            silence_s=upstream.silence_s,
            tls=self._tls[upstream.name],
        )

    def _use(self, connection: Connection, items: Sequence[Mapping[str, Any]]) -> None:
        assert self._start is not None
        ours = self._start.audio_format
        if (old := self._connection) is not None:
            old.stop()
            letting_go = asyncio.create_task(old.close())
            self._letting_go.add(letting_go)
            letting_go.add_done_callback(self._letting_go.discard)
        self._connection = connection
        self._up = AudioConverter(ours, connection.hears)
        self._down = DeltaAudio(connection.speaks, ours)
        self._dropping = False
        connection.run(self._received, self._lost, _told(items, ours, connection.hears))
        self._emit(UpstreamOpened(connection.name, connection.session, connection.created_id))
        for event in connection.early:
            if self._connection is connection:
                self._received(event)

    async def _reopen(self, command: ReopenUpstream) -> None:
        lost = self._connection is None
        if lost and not self._failover.may_reopen(asyncio.get_running_loop().time()):
            self._emit(EngineFailed("the upstream was lost again and again"))
            return
        try:
            await self._open(self._secrets.restore(_settable(command.session)), command.items)
        except EngineUnavailable as error:
            self._waiting = None
            if self._connection is None:
                self._emit(EngineFailed(str(error)))
            else:
                self._emit(UpstreamNote(f"{error}; the present session goes on"))
            return
        # What the caller said before it was there: of a turn that is not over, and since.
        missed, self._waiting = command.turn + b"".join(self._waiting or ()), None
        if missed:
            self.hear(missed)
        if self._unheard:
            self._emit(
                UpstreamNote(
                    "nobody was there for all of the caller's sound: the oldest is dropped",
                    {"dropped_frames": self._unheard},
                )
            )

    # What comes down.

    def _received(self, event: dict[str, Any]) -> None:
        audio = b""
        if self._down is not None and event["type"] == "response.output_audio.delta":
            audio = self._down.take(str(event.get("delta") or ""), event.get("item_id"))
        elif self._down is not None and event["type"] == "response.output_audio.done":
            audio = self._down.finish()
        elif event["type"] == "error":
            event = self._without_secrets(event)
        self._emit(UpstreamEvent(event, audio))

    def _without_secrets(self, event: dict[str, Any]) -> dict[str, Any]:
        """An error's words stand on the timeline."""
        error = event.get("error")
        if not isinstance(error, dict) or not isinstance(message := error.get("message"), str):
            return event
        return event | {"error": error | {"message": self._secrets.hide(message)}}

    def _lost(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
            self._emit(UpstreamLost(f"{connection.name}: {reason}"))

    def _say_dropping(self, connection: Connection) -> None:
        if self._dropping:
            self._emit(
                UpstreamNote(f"{connection.name} is slow: the oldest of the caller's sound is dropped")
            )
        else:
            self._emit(
                UpstreamNote(f"{connection.name} keeps up again", {"dropped_frames": connection.dropped})
            )


# What a session object holds that a client may not set.
_READ_ONLY = {"id", "object", "expires_at", "model", "client_secret"}


def _settable(session: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in session.items() if name not in _READ_ONLY and value is not None}


def _told(
    items: Sequence[Mapping[str, Any]], ours: AudioFormat, hears: AudioFormat
) -> Iterator[Mapping[str, Any]]:
    for number, item in enumerate(items):
        event_id = f"offhook_replay_{number}"
        yield {
            "type": "conversation.item.create",
            "event_id": event_id,
            "item": replayed(item, ours, hears),
        }


class UpstreamFactory:
    """Calls whose voice is one of these upstreams, in this order."""

    kind = "upstream"
    relays = True
    # The model keeps no time of its own: to even its input out would be delay for nothing.
    prompt = True

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        *,
        tls: ssl.SSLContext | None = None,
        hold: HoldSentence | None = None,
    ) -> None:
        self._upstreams = tuple(upstreams)
        self._hold = hold
        self._tls = {upstream.name: trust(upstream, tls) for upstream in upstreams}
        self.opening_s: float | None = sum(upstream.silence_s for upstream in upstreams) + 1.0

    async def start(self) -> None:
        """Nothing is opened before a call comes."""

    @property
    def ready(self) -> bool:
        return True

    @property
    def free(self) -> int | None:
        return None

    def create(self) -> UpstreamEngine:
        return UpstreamEngine(self._upstreams, tls=self._tls)

    def create_session(
        self,
        config: SessionConfig | TranscriptionConfig,
        *,
        session_id: str,
        audio_format: AudioFormat,
        new_id: Callable[[str], str],
        sip: bool,
        max_duration_s: float,
    ) -> SessionCore:
        if not sip:
            names = ", ".join(upstream.name for upstream in self._upstreams)
            raise PhoneCallsOnly(f"its upstream ({names}) serves phone calls only on this node")
        assert isinstance(config, SessionConfig), "a call's session is not a transcription session"
        return Relay(
            config,
            session_id=session_id,
            audio_format=audio_format,
            new_id=new_id,
            max_duration_s=max_duration_s,
            hold=self._hold,
        )

    def describe(self) -> Mapping[str, object]:
        return {"kind": self.kind, "upstreams": [upstream.name for upstream in self._upstreams]}

    async def close(self) -> None:
        """Calls close their own connections."""
