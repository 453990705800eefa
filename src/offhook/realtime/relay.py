"""
The core of a call whose voice is another Realtime API: its events come through here, and the app's go up.

Pure, as `Session` is. The upstream owns turns, words and the conversation; the phone is ours. So
`output_audio_buffer.*` and the truncation of what was not heard follow our played clock, keys are reported by us,
and formats are ours to choose. Everything else passes with its ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from offhook.realtime import server_events as events
from offhook.realtime.client_events import ClientEventError
from offhook.realtime.engine import (
    AudioFormat,
    EngineEvent,
    EngineFailed,
    ReopenUpstream,
    SendUpstream,
    UpstreamEvent,
    UpstreamLost,
    UpstreamNote,
    UpstreamOpened,
)
from offhook.realtime.outbox import Outbox, Output, ServerEvent, SessionClosed, SessionExpired
from offhook.realtime.relay_memory import RelayMemory
from offhook.realtime.relay_open import RelayOpen
from offhook.realtime.relay_usage import RelayUsage
from offhook.realtime.relay_voice import RelayVoice
from offhook.realtime.session_config import SessionConfig

__all__ = ["Relay"]

DRAIN_S = 1.0
"How long a closing call waits for words and answers that are under way (row S17)."
MAX_HELD = 1000
"Client events that wait for the upstream to open."
MAX_ASKED = 512
_OWN = "offhook_"
_SWALLOWED = {"session.created", "conversation.created"}


class Relay:
    """One relayed session. Inputs take `now` (seconds, monotonic); after each, take `outputs()`."""

    def __init__(
        self,
        config: SessionConfig,
        *,
        session_id: str,
        audio_format: AudioFormat,
        new_id: Callable[[str], str],
        max_duration_s: float,
        drain_s: float = DRAIN_S,
    ) -> None:
        self.id = session_id
        self.sip = True
        self.new_id = new_id
        self.closed = False
        self._config = config
        self._max_duration_s = max_duration_s
        self._drain_s = drain_s
        self._expires_at = 0
        self._session: dict[str, Any] | None = None
        self._outbox = Outbox(new_id)
        self._voice = RelayVoice(self._outbox, audio_format, self._cut_short)
        self._memory = RelayMemory()
        self._usage = RelayUsage()
        self._clients: dict[int, bool] = {}
        "Each sender, and whether it was told `session.created`."
        self._asked: dict[str, int] = {}
        "Who sent a client event, by its `event_id`."
        self._held: list[Mapping[str, Any]] = []
        self._open = False
        self._begun = RelayOpen()
        self._replaying: set[str] = set()
        "Items that a reopened upstream is told again; the app knows them."
        self._elsewhere: set[str] = set()
        "Items whose sound came over a connection that is lost; no other one can truncate it."
        self._transcribing: set[str] = set()
        self._timers: dict[str, float] = {}
        self._closing: str | None = None
        self._own = 0
        self._interrupting = True
        self.behind = False
        "The engine queues what goes up, so no client waits for another's event."

    # Outputs.

    def outputs(self) -> list[Output]:
        return self._outbox.take()

    @property
    def has_outputs(self) -> bool:
        return bool(self._outbox)

    def next_timer(self) -> float | None:
        return min(self._timers.values(), default=None)

    def describe(self) -> dict[str, Any]:
        """Return the upstream's effective session; before there is one, what the app asked for."""
        if self._session is not None:
            return self._session
        return self._config.to_api(session_id=self.id, expires_at=self._expires_at)

    # Inputs.

    def start(self, now: float, wall: float) -> None:
        self._expires_at = int(wall + self._max_duration_s)
        self._timers["expiry"] = now + self._max_duration_s

    def receive_audio(self, audio: bytes, now: float) -> None:
        """The engine sends the caller's sound up by itself; nothing here depends on it."""

    def attach(self, sender: int, *, audio: bool = False) -> None:
        """A client connected; it gets `session.created` when the upstream's has come."""
        self._clients[sender] = False
        if self._session is not None:
            self._tell_created(sender, None)

    def detach(self, sender: int) -> None:
        self._clients.pop(sender, None)

    def receive_client_event(
        self, event: Mapping[str, Any] | str | bytes, *, sender: int, now: float
    ) -> None:
        """Send a client's event up, except what concerns the phone."""
        event_id: str | None = None
        try:
            parsed = _parse(event)
            given = parsed.get("event_id")
            event_id = given if isinstance(given, str) else None
            self._handle_client_event(parsed, event_id, sender)
        except ClientEventError as error:
            told = events.error(error.message, code=error.code, param=error.param, event_id=event_id)
            self._outbox.event(told, to=sender)

    def receive_digit(self, digit: str, now: float, received_at: float) -> None:
        self._outbox.raw_event(events.dtmf_received(digit, int(received_at)))

    def receive_engine_event(self, event: EngineEvent, now: float) -> None:
        match event:
            case UpstreamEvent():
                self._receive(event)
            case UpstreamOpened():
                self._opened(event)
            case UpstreamLost():
                self._lost(event)
            case UpstreamNote():
                self._outbox.note("upstream", event.title, **event.details)
            case EngineFailed():
                self._open = False
                self._outbox.note("error", f"the engine failed: {event.message}")
                self._fail_active(event.message)
        self._after()

    def playout_progress(self, played_samples: int, now: float) -> None:
        self._voice.progress(played_samples)

    def playout_drained(self, played_samples: int, now: float) -> None:
        self._voice.drain(played_samples)

    def handle_timer(self, now: float) -> None:
        for name, deadline in sorted(self._timers.items(), key=lambda timer: timer[1]):
            if deadline <= now and self._timers.pop(name, None) is not None:
                self._fire(name)
        self._after()

    def close(self, reason: str, now: float) -> None:
        """End: what is under way gets `drain_s`; then `SessionClosed` comes, after every `response.done`."""
        if self._closing is not None:
            return
        self._closing = reason
        self._timers = {"drain": now + self._drain_s}
        self._voice.cut(self._begun.responses)
        for response_id in self._begun.responses:
            self._send({"type": "response.cancel", "response_id": response_id})
        self._after()

    # The app's events.

    def _handle_client_event(self, event: dict[str, Any], event_id: str | None, sender: int) -> None:
        match event["type"]:
            case "input_audio_buffer.append":
                message = (
                    "input_audio_buffer.append is not used on a phone call: the audio comes from the caller."
                )
                raise ClientEventError("unsupported_event", message, "type")
            case "output_audio_buffer.clear":
                self._clear()
                return
            case "conversation.item.truncate":
                item_id = str(event.get("item_id"))
                heard_ms = self._voice.truncated_ms(item_id)
                if heard_ms is not None:
                    # Where we have cut already, our boundary stands (row E21).
                    index = int(event.get("content_index") or 0)
                    self._outbox.event(events.item_truncated(item_id, index, heard_ms))
                    return
            case "session.update":
                event = _with_our_formats(event, "session", ("input", "output"))
            case "response.create":
                event = _with_our_formats(event, "response", ("output",))
        if event_id is not None:
            self._asked[event_id] = sender
            if len(self._asked) > MAX_ASKED:
                del self._asked[next(iter(self._asked))]
        self._up(event)

    def _clear(self) -> None:
        """JS clients interrupt with this alone (row E17), so what is being made must stop too."""
        if self._voice.busy:
            active = self._begun.responses
            self._voice.cut(active)
            for response_id in active:
                self._send({"type": "response.cancel", "response_id": response_id})

    # The upstream's events.

    def _opened(self, event: UpstreamOpened) -> None:
        again = self._session is not None
        self._adopt(event.session)
        self._open = True
        self._outbox.note("upstream", f"{event.name} is open", session_id=event.session.get("id"))
        if not again:
            for sender in self._clients:
                self._tell_created(sender, event.event_id)
        else:
            self._outbox.event(events.session_updated(self.describe()))
        held, self._held = self._held, []
        for waiting in held:
            self._outbox.command(SendUpstream(waiting))

    def _lost(self, event: UpstreamLost) -> None:
        self._open = False
        self._outbox.note("upstream", f"lost: {event.reason}")
        self._fail_active(event.reason)
        self._transcribing.clear()
        self._elsewhere |= self._voice.item_ids
        if self._closing is None:
            items = self._memory.replay()
            self._replaying = {str(item["id"]) for item in items}
            self._outbox.command(ReopenUpstream(self.describe(), items))

    def _receive(self, received: UpstreamEvent) -> None:
        event = received.event
        kind = str(event.get("type"))
        if kind in _SWALLOWED or kind.startswith("output_audio_buffer."):
            return
        if self._replaying and self._is_replay(kind, event):
            return
        self._memory.receive(event)
        self._begun.receive(event)
        match kind:
            case "response.output_audio.delta" | "response.output_audio.done":
                self._voice.play(event, received.audio)
            case "session.updated":
                if session := _object(event.get("session")):
                    self._adopt(session)
            case "error":
                self._error(event)
                return
        self._outbox.put(ServerEvent(event))
        self._follow(kind, event)

    def _follow(self, kind: str, event: dict[str, Any]) -> None:
        """Do what an event means for the phone and the timeline, after the app was told."""
        item_id = str(event.get("item_id"))
        match kind:
            case "input_audio_buffer.speech_started":
                if self._interrupting:
                    self._voice.cut(self._begun.responses)
            case "input_audio_buffer.committed":
                if _input(self._session).get("transcription"):
                    self._transcribing.add(item_id)
            case "conversation.item.input_audio_transcription.completed":
                self._transcribing.discard(item_id)
                self._outbox.note("heard", str(event.get("transcript")), item_id=item_id)
            case "conversation.item.input_audio_transcription.failed":
                self._transcribing.discard(item_id)
            case "response.output_audio_transcript.done":
                said = str(event.get("transcript"))
                self._outbox.note("said", said, response_id=event.get("response_id"))
            case "response.function_call_arguments.done":
                self._outbox.note("tool_call", f"{event.get('name')}({event.get('arguments')})")
            case "response.done":
                self._done(_object(event.get("response")))

    def _done(self, response: dict[str, Any]) -> None:
        response_id = str(response.get("id"))
        self._voice.finish(response_id)
        self._usage.add(_object(response.get("usage")))
        status = str(response.get("status"))
        self._outbox.note("response", status, response_id=response_id, usage=self._usage.to_api())

    def _error(self, event: dict[str, Any]) -> None:
        error = _object(event.get("error"))
        event_id = error.get("event_id")
        if error.get("code") == "session_expired":
            # Its connection ends with this, our call does not.
            self._outbox.note("upstream", "its session reached its time limit")
            return
        self._outbox.note("error", f"upstream: {error.get('message')}", code=error.get("code"))
        if isinstance(event_id, str):
            if event_id.startswith(_OWN):
                return
            if (sender := self._asked.pop(event_id, None)) is not None:
                self._outbox.put(ServerEvent(event, sender))
                return
        self._outbox.put(ServerEvent(event))

    def _is_replay(self, kind: str, event: dict[str, Any]) -> bool:
        item_id = str(_object(event.get("item")).get("id"))
        if item_id not in self._replaying or not kind.startswith("conversation.item."):
            return False
        if kind == "conversation.item.done":
            self._replaying.discard(item_id)
        return True

    # Parts.

    def _adopt(self, session: dict[str, Any]) -> None:
        self._session = session
        turn_detection = _input(session).get("turn_detection", {})
        self._interrupting = (
            turn_detection is not None and _object(turn_detection).get("interrupt_response") is not False
        )

    def _tell_created(self, sender: int, event_id: str | None) -> None:
        self._clients[sender] = True
        created = events.session_created(self.describe())
        if event_id is None:
            self._outbox.event(created, to=sender)
        else:
            self._outbox.put(ServerEvent({"type": created["type"], "event_id": event_id, **created}, sender))

    def _cut_short(self, item_id: str, content_index: int, heard_ms: int, made_ms: int) -> None:
        self._memory.truncate(item_id, heard_ms, made_ms)
        self._outbox.note("interrupted", f"heard {heard_ms} of {made_ms} ms", item_id=item_id)
        truncated = events.item_truncated(item_id, content_index, heard_ms)
        if item_id in self._elsewhere:
            self._outbox.event(truncated)
        else:
            self._send(truncated | {"type": "conversation.item.truncate"})

    def _send(self, event: dict[str, Any]) -> None:
        """Send an event of our own up; what goes wrong with it is not the app's affair."""
        if self._open:
            self._own += 1
            self._outbox.command(SendUpstream({"event_id": f"{_OWN}{self._own}", **event}))

    def _up(self, event: Mapping[str, Any]) -> None:
        if self._open:
            self._outbox.command(SendUpstream(event))
        elif len(self._held) < MAX_HELD:
            self._held.append(event)
        else:
            raise ClientEventError(
                "upstream_unavailable", "The upstream is not open and takes no more events."
            )

    def _fail_active(self, message: str) -> None:
        """The upstream is gone: every response that it began ends, once (row O12)."""
        active = self._begun.responses
        for event in self._begun.end("upstream_lost", message):
            self._outbox.event(event)
        for response_id in active:
            self._voice.finish(response_id)
            self._outbox.note("response", f"failed: {message}", response_id=response_id)

    def _fire(self, name: str) -> None:
        if name == "expiry":
            minutes = round(self._max_duration_s / 60)
            message = f"Your session hit the maximum duration of {minutes} minutes."
            self._outbox.event(events.error(message, code="session_expired"))
            self._outbox.put(SessionExpired())
        elif name == "drain":
            self._transcribing.clear()
            self._fail_active("the call ended")

    def _after(self) -> None:
        if self._closing is None or self.closed or (self._open and (self._begun or self._transcribing)):
            return
        self._fail_active("the call ended")
        self.closed = True
        self._timers.clear()
        if self._usage.responses:
            self._outbox.note("usage", self._usage.title, **self._usage.to_api())
        self._outbox.put(SessionClosed(self._closing))


def _parse(event: Mapping[str, Any] | str | bytes) -> dict[str, Any]:
    if isinstance(event, bytes):
        raise ClientEventError("invalid_event", "Binary frames are not used; send events as text.")
    if isinstance(event, str):
        try:
            event = orjson.loads(event)
        except orjson.JSONDecodeError as error:
            raise ClientEventError("invalid_json", f"The frame is not JSON: {error}.") from None
    if not isinstance(event, Mapping):
        raise ClientEventError("invalid_type", "An event is a JSON object with a 'type'.")
    if not isinstance(event.get("type"), str):
        raise ClientEventError("missing_required_parameter", "Missing required parameter: 'type'.", "type")
    return dict(event)


def _with_our_formats(event: dict[str, Any], name: str, sides: tuple[str, ...]) -> dict[str, Any]:
    """Leave out what the phone decides (rows E03, E04) and the model, which the connection decides (row E06)."""
    given = event.get(name)
    if not isinstance(given, Mapping):
        return event
    kept = {key: value for key, value in given.items() if key != "model"}
    if isinstance(audio := kept.get("audio"), Mapping):
        kept["audio"] = dict(audio)
        for side in sides:
            if isinstance(part := audio.get(side), Mapping):
                kept["audio"][side] = {key: value for key, value in part.items() if key != "format"}
    return event | {name: kept}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _input(session: Any) -> dict[str, Any]:
    return _object(_object(_object(session).get("audio")).get("input"))
