"""The driver of a session: one inbox, one engine, n listeners, one timer."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import orjson

from offhook.clock import Clock
from offhook.realtime.client_events import ClientFrame
from offhook.realtime.core import SessionCore
from offhook.realtime.engine import (
    CancelResponse,
    Engine,
    EngineEvent,
    EngineFailed,
    EngineStart,
    KeepUpstream,
    PauseUpstream,
    ReopenUpstream,
    Respond,
    ResumeUpstream,
    SendUpstream,
    Transcribe,
    VoiceActivity,
)
from offhook.realtime.long_events import in_pieces
from offhook.realtime.long_text import LongText
from offhook.realtime.outbox import (
    ClearPlayout,
    HearAudio,
    Output,
    PlayAudio,
    RetrievedItem,
    ServerEvent,
    SessionClosed,
    SessionExpired,
    SessionNote,
)
from offhook.realtime.saying import Saying

__all__ = ["Attachment", "Listener", "Playout", "SessionRunner"]

logger = logging.getLogger("offhook.realtime")

# Told to a client on a call only if it asked for audio (decision 6 of the design).
_AUDIO_EVENT = "response.output_audio.delta"
HEARING_S = 0.002
"How often it is looked whether a long append was heard, which the runner's timer sees to."
_NOBODY = 0
"As a sender; clients are counted from 1."


class Listener(Protocol):
    """One client's connection. Neither method may block; a slow client is the listener's own affair."""

    def send(self, frame: bytes) -> None:
        """Send one event: JSON text in UTF-8, for a text frame."""

    def close(self, code: int, reason: str) -> None:
        """Send what is queued, then close the WebSocket."""


class Playout(Protocol):
    """Where the agent's voice goes; `media.port.MediaPort` is one."""

    def play(self, audio: bytes) -> None: ...

    def clear(self) -> int: ...

    @property
    def played_samples(self) -> int: ...

    @property
    def queued_samples(self) -> int: ...


class Attachment:
    """One client of a session, from `SessionRunner.attach` to `detach`."""

    def __init__(
        self, runner: SessionRunner, sender: int, listener: Listener, events: frozenset[str]
    ) -> None:
        self.sender = sender
        self.listener = listener
        self.events = events
        self._runner = runner

    def receive(self, frame: str | bytes | LongText) -> Awaitable[None] | None:
        """
        Hand over a frame from the client: text as `str`, a binary frame as `bytes`.

        A long text takes a while: the next frame may come when what this returns is done.
        """
        if isinstance(frame, LongText):
            return self._runner.receive_long_event(frame, self)
        self._runner.receive_client_event(frame, self)
        return None

    def detach(self) -> None:
        """The client's connection is gone. Safe to call twice."""
        self._runner.detach(self)


class SessionRunner:
    """
    Serializes everything that happens to a session, and carries out what it decides.

    All methods are called from the event loop's thread. Inputs that come while another is handled (an engine
    that answers at once) wait in the inbox, so the order of events is the order of their causes.
    """

    def __init__(
        self,
        session: SessionCore,
        engine: Engine,
        *,
        clock: Clock,
        playout: Playout | None = None,
        on_note: Callable[[SessionNote], None] | None = None,
        on_expired: Callable[[], None] | None = None,
        on_failed: Callable[[str], None] | None = None,
    ) -> None:
        self.session = session
        self._engine = engine
        self._clock = clock
        self._playout = playout
        self._on_note = on_note
        self._on_expired = on_expired
        self._on_failed = on_failed
        self._attachments: dict[int, Attachment] = {}
        self._next_sender = 1
        self._inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._closed = asyncio.Event()
        self._encoding: deque[RetrievedItem] = deque()
        self._ending: str | None = None
        self._close_code = 1000
        self._saying = Saying()
        self._until_said: list[tuple[asyncio.Future[bool], int]] = []
        session.start(clock.monotonic(), clock.wall())

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    @property
    def listeners(self) -> int:
        """How many clients are attached."""
        return len(self._attachments)

    async def start(self, start: EngineStart) -> None:
        """Get the engine ready. Raises `EngineUnavailable`; then close the runner."""
        await self._engine.start(start, self.receive_engine_event)
        self._do(self._progress)

    # Inputs.

    def receive_audio(self, audio: bytes) -> None:
        """Take the caller's next 20 ms."""
        if self.closed:
            return
        now = self._clock.monotonic()
        self.session.receive_audio(audio, now)
        self._engine.hear(audio)
        if self._playout is not None:
            self.session.playout_progress(self._playout.played_samples, now)
        if self.session.has_outputs and not self._pumping:
            self._pump()

    def receive_digit(self, digit: str) -> None:
        self._do(self.session.receive_digit, digit, self._clock.monotonic(), self._clock.wall())

    def receive_engine_event(self, event: EngineEvent) -> None:
        """Take what the engine heard or made; the engine's `emit`."""
        if type(event) is VoiceActivity and not self._inbox and not self._pumping:
            # 30 times a second for each call, and nearly always without consequence.
            self._guarded(self._receive_activity, event)
            if self.session.has_outputs or self.session.behind:
                self._pump()
            return
        self._do(self._receive_engine_event, event)

    def _receive_activity(self, event: VoiceActivity) -> None:
        self._progress()
        self.session.receive_engine_event(event, self._clock.monotonic())

    def _receive_engine_event(self, event: EngineEvent) -> None:
        self.session.receive_engine_event(event, self._clock.monotonic())
        if isinstance(event, EngineFailed) and self._on_failed is not None:
            self._on_failed(event.message)

    def playout_drained(self) -> None:
        """The last queued sample was sent."""
        self._do(self._drained)

    def said(self) -> asyncio.Future[bool]:
        """
        Return a future that is done once the caller has heard all that the agent is saying.

        It is `False` when that was cut short, or the session has ended. Cancel it when it is not wanted any more.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._until_said.append((future, self._saying.cuts))
        self._do(self._progress)
        return future

    def _tell_said(self) -> None:
        cuts, is_over = self._saying.cuts, self.closed or not self._saying.busy
        waiting, self._until_said = self._until_said, []
        for future, cuts_before in waiting:
            if future.done():
                continue
            if is_over or cuts > cuts_before:
                future.set_result(not self.closed and cuts == cuts_before)
            else:
                self._until_said.append((future, cuts_before))

    def _drained(self) -> None:
        # Something may have been queued between the sender's call and now.
        if self._playout is not None and self._playout.queued_samples == 0:
            self.session.playout_drained(self._playout.played_samples, self._clock.monotonic())

    # Clients.

    def attach(self, listener: Listener, *, events: frozenset[str] = frozenset()) -> Attachment:
        """
        Add a client; it gets `session.created` first. `events` are the extensions that it asked for, of
        `audio` (the agent's sound) and `call` (`call.*` events).
        """
        attachment = Attachment(self, self._next_sender, listener, events)
        self._next_sender += 1
        self._do(self._attach, attachment)
        return attachment

    def _attach(self, attachment: Attachment) -> None:
        if self.closed:
            attachment.listener.close(1000, "the session has ended")
            return
        self._attachments[attachment.sender] = attachment
        self.session.attach(attachment.sender, audio="audio" in attachment.events)

    def detach(self, attachment: Attachment) -> None:
        if self._attachments.pop(attachment.sender, None) is not None:
            self._do(self.session.detach, attachment.sender)

    async def receive_long_event(self, frame: LongText, attachment: Attachment) -> None:
        """Take an event of many megabytes, a piece at a time, and wait until its sound is heard."""
        ear = self.session.ear
        if ear is None:
            self.receive_client_event(str(frame), attachment)
            return
        pieces = in_pieces(frame, ear)
        while not self.closed:
            try:
                piece = next(pieces)
            except StopIteration:
                return
            except Exception:
                logger.exception(
                    "a long event failed", extra={"event": "session.fault", "session_id": self.session.id}
                )
                return
            if piece is not None:
                self.receive_client_event(piece, attachment)
            await asyncio.sleep(0)
            await self.heard()

    async def heard(self) -> None:
        """Return when the session has heard what a client appended."""
        while self.session.behind and not self.closed:  # noqa: ASYNC110
            await asyncio.sleep(HEARING_S)

    def receive_client_event(self, frame: ClientFrame, attachment: Attachment) -> None:
        self._do(self._receive_client_event, frame, attachment.sender)

    def _receive_client_event(self, frame: ClientFrame, sender: int) -> None:
        if sender in self._attachments:
            self.session.receive_client_event(frame, sender=sender, now=self._clock.monotonic())

    def ask(self, event: Mapping[str, Any]) -> None:
        """Take an event as a client might send it, where there is none: nobody reads what is wrong with it."""
        self._do(self._ask, event)

    def _ask(self, event: Mapping[str, Any]) -> None:
        if not self.closed:
            self.session.receive_client_event(event, sender=_NOBODY, now=self._clock.monotonic())

    def publish_extension(self, event: dict[str, Any]) -> None:
        """Send a `call.*` event to the clients that asked for those (row V02)."""
        if self._attachments or self._pumping:
            self._do(self._publish_extension, event)

    def _publish_extension(self, event: dict[str, Any]) -> None:
        frame = orjson.dumps({"type": event["type"], "event_id": self.session.new_id("event"), **event})
        for attachment in list(self._attachments.values()):
            if "call" in attachment.events:
                attachment.listener.send(frame)

    # The end.

    async def close(self, reason: str, code: int = 1000) -> None:
        """
        Finish every response, tell the clients, close them with `code`, free the engine (rows S16, S17).

        Returns when all that is done; safe to call twice and before `start`. Cancelled, it waits for the responses
        no longer, but closes the clients and frees the engine all the same.
        """
        if not self.closed:
            self._close_code = code
        self._do(self.session.close, reason, self._clock.monotonic())
        try:
            await self._closed.wait()
        finally:
            self._let_go(reason)
            await self._engine.close()

    def _finish(self, reason: str) -> None:
        if self._encoding:
            self._ending = reason
        else:
            self._let_go(reason)

    def _let_go(self, reason: str) -> None:
        self._closed.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        attachments, self._attachments = self._attachments, {}
        for attachment in attachments.values():
            attachment.listener.close(self._close_code, reason)
        self._tell_said()

    # The pump.

    def _do(self, handle: Callable[..., None], *args: Any) -> None:
        self._inbox.append((handle, args))
        if not self._pumping:
            self._pump()

    def _pump(self) -> None:
        self._pumping = True
        try:
            if self.session.has_outputs:
                self._guarded(self._flush)
            while self._inbox:
                handle, args = self._inbox.popleft()
                self._guarded(self._take, handle, args)
        finally:
            self._pumping = False
        if self._until_said:
            self._tell_said()
        self._arm()

    def _take(self, handle: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._progress()
        handle(*args)
        self._flush()

    def _guarded(self, work: Callable[..., None], *args: Any) -> None:
        """The callers are the pacer, sockets and workers of all calls: a fault of one must not reach them."""
        try:
            work(*args)
        except Exception:
            logger.exception(
                "a session input failed", extra={"event": "session.fault", "session_id": self.session.id}
            )

    def _flush(self) -> None:
        self._carry_out(self.session.outputs())

    def _progress(self) -> None:
        if self._playout is not None:
            self.session.playout_progress(self._playout.played_samples, self._clock.monotonic())

    def _carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case ServerEvent():
                    self._send(output)
                case RetrievedItem():
                    self._encode(output)
                case Transcribe() | Respond() | CancelResponse() | SendUpstream():
                    self._engine.handle(output)
                case ReopenUpstream() | KeepUpstream() | PauseUpstream() | ResumeUpstream():
                    self._engine.handle(output)
                case PlayAudio():
                    if self._playout is not None:
                        self._playout.play(output.audio)
                case ClearPlayout():
                    if self._playout is not None:
                        self._playout.clear()
                case HearAudio():
                    self._engine.hear(output.audio)
                case SessionNote():
                    if self._on_note is not None:
                        self._on_note(output)
                case SessionExpired():
                    if self._on_expired is not None:
                        self._on_expired()
                case SessionClosed():
                    self._finish(output.reason)

    def _send(self, output: ServerEvent) -> None:
        if output.to is not None:
            if (attachment := self._attachments.get(output.to)) is not None:
                attachment.listener.send(orjson.dumps(output.event))
            return
        self._saying.receive(output.event)
        frame: bytes | None = None
        audio_only = self.session.sip and output.event["type"] == _AUDIO_EVENT
        for attachment in list(self._attachments.values()):
            if audio_only and "audio" not in attachment.events:
                continue
            frame = frame or orjson.dumps(output.event)
            attachment.listener.send(frame)

    def _encode(self, item: RetrievedItem) -> None:
        self._encoding.append(item)
        if len(self._encoding) == 1:
            asyncio.get_running_loop().call_soon(self._encode_next)

    def _encode_next(self) -> None:
        """Encode a piece of what was retrieved, then let others have the loop."""
        item = self._encoding[0]
        if item.encode_next():
            self._encoding.popleft()
            frame = item.frame()
            for attachment in list(self._attachments.values()):
                attachment.listener.send(frame)
        if self._encoding:
            asyncio.get_running_loop().call_soon(self._encode_next)
        elif self._ending is not None:
            self._finish(self._ending)

    def _arm(self) -> None:
        deadline = None if self.closed else self.session.next_timer()
        if deadline == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = deadline
        if deadline is not None:
            delay = max(0.0, deadline - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self.handle_timer)

    def handle_timer(self) -> None:
        """Do what is due. The runner's own timer calls this."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._do(self.session.handle_timer, self._clock.monotonic())
