"""
The core of a call whose voice is another Realtime API: its events come through here, and the app's go up.

Pure, as `Session` is. The upstream owns turns, words and the conversation; the phone is ours. So
`output_audio_buffer.*` and the truncation of what was not heard follow our played clock, keys are reported by us,
and formats are ours to choose. Everything else passes with its ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from offhook.realtime import server_events as events
from offhook.realtime.client_events import ClientEventError, ClientFrame
from offhook.realtime.engine import (
    AudioFormat,
    EngineEvent,
    EngineFailed,
    PauseUpstream,
    ReopenUpstream,
    ResumeUpstream,
    SendUpstream,
    UpstreamEvent,
    UpstreamLost,
    UpstreamNote,
    UpstreamOpened,
)
from offhook.realtime.mcp import without_secrets
from offhook.realtime.outbox import Outbox, Output, ServerEvent, SessionClosed, SessionExpired
from offhook.realtime.relay_caller import RelayCaller
from offhook.realtime.relay_clients import OWN, RelayClients
from offhook.realtime.relay_crossing import RelayCrossing
from offhook.realtime.relay_hold import HoldSentence, RelayHold
from offhook.realtime.relay_memory import RelayMemory
from offhook.realtime.relay_open import RelayOpen
from offhook.realtime.relay_request import parse_request, with_our_formats
from offhook.realtime.relay_turns import RelayTurns
from offhook.realtime.relay_unanswered import RelayUnanswered
from offhook.realtime.relay_usage import RelayUsage
from offhook.realtime.relay_voice import RelayVoice
from offhook.realtime.session_config import SessionConfig
from offhook.realtime.sideband_audio import bytes_per_ms

__all__ = ["Relay"]

DRAIN_S = 1.0
"How long a closing call waits for words and answers that are under way (row S17)."
MAX_AHEAD_MS = 600_000
"Sound that may wait to be played. An upstream may be minutes ahead; one that is further ahead is read no more."
MAX_TRANSCRIBING = 16
"Turns whose words may still come. They are waited for when the call ends."
_REPLAYED = {"conversation.item.added", "conversation.item.created", "conversation.item.done"}
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
        hold: HoldSentence | None = None,
        max_ahead_ms: int = MAX_AHEAD_MS,
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
        self._hold = RelayHold(hold, audio_format, self._voice, self._outbox)
        self._memory = RelayMemory()
        self._unanswered = RelayUnanswered()
        self._caller = RelayCaller(bytes_per_ms(audio_format))
        self._bytes_per_ms = bytes_per_ms(audio_format)
        self._max_ahead_ms = max_ahead_ms
        self._paused = False
        self._wall_offset = 0.0
        self._turn_item: str | None = None
        "The caller's turn whose sound is kept."
        self._usage = RelayUsage()
        self._turns = RelayTurns(self._outbox)
        self._clients = RelayClients(self._outbox)
        self._open = False
        self._begun = RelayOpen()
        self._replaying: set[str] = set()
        "Items that a reopened upstream is told again; the app knows them."
        self._next_replaying: set[str] = set()
        self._elsewhere: set[str] = set()
        "Items whose sound came over a connection that is lost; no other one can truncate it."
        self._crossing = RelayCrossing(self._outbox)
        self._transcribing: deque[str] = deque(maxlen=MAX_TRANSCRIBING)
        self._timers: dict[str, float] = {}
        self._closing: str | None = None
        self._own = 0
        self._interrupting = True
        self._answering = True
        "Whether the upstream answers the caller's turns by itself."
        self.behind = False
        "The engine queues what goes up, so no client waits for another's event."

    # Outputs.

    def outputs(self) -> list[Output]:
        return self._outbox.take()

    @property
    def has_outputs(self) -> bool:
        return bool(self._outbox)

    def next_timer(self) -> float | None:
        due = (*self._timers.values(), self._hold.due, self._crossing.due)
        return min((at for at in due if at is not None), default=None)

    def describe(self) -> dict[str, Any]:
        """Return the upstream's effective session; before there is one, what the app asked for."""
        if self._session is not None:
            return self._session
        return self._config.to_api(session_id=self.id, expires_at=self._expires_at)

    # Inputs.

    def start(self, now: float, wall: float) -> None:
        self._wall_offset = wall - now
        self._expires_at = int(wall + self._max_duration_s)
        self._timers["expiry"] = now + self._max_duration_s

    def receive_audio(self, audio: bytes, now: float) -> None:
        """The engine sends the caller's sound up by itself; the present turn's is kept for the next upstream."""
        self._caller.hear(audio)

    def attach(self, sender: int, *, audio: bool = False) -> None:
        """A client connected; it gets `session.created` when the upstream's has come."""
        self._clients.attach(sender)
        if self._session is not None:
            self._clients.greet(self._session)

    def detach(self, sender: int) -> None:
        self._clients.detach(sender)

    ear = None
    """Events go up as they are, however long."""

    def receive_client_event(self, event: ClientFrame, *, sender: int, now: float) -> None:
        """Send a client's event up, except what concerns the phone."""
        event_id: str | None = None
        try:
            parsed = parse_request(event)
            given = parsed.get("event_id")
            event_id = given if isinstance(given, str) else None
            self._handle_client_event(parsed, event_id, sender)
        except ClientEventError as error:
            self._clients.refuse(error, event_id, sender)

    def receive_digit(self, digit: str, now: float, received_at: float) -> None:
        self._outbox.raw_event(events.dtmf_received(digit, int(received_at)))

    def receive_engine_event(self, event: EngineEvent, now: float) -> None:
        match event:
            case UpstreamEvent():
                self._receive(event, now)
            case UpstreamOpened():
                self._opened(event, now)
            case UpstreamLost():
                self._lost(event, now)
            case UpstreamNote():
                self._outbox.note("upstream", event.title, **event.details)
            case EngineFailed():
                self._open = False
                self._hold.end()
                self._outbox.note("error", f"the engine failed: {event.message}")
                self._fail_active(event.message)
        self._after()

    def playout_progress(self, played_samples: int, now: float) -> None:
        self._voice.progress(played_samples)
        if self._paused:
            self._resume()

    def playout_drained(self, played_samples: int, now: float) -> None:
        self._voice.drain(played_samples)
        if self._paused:
            self._resume()

    def handle_timer(self, now: float) -> None:
        for name, deadline in sorted(self._timers.items(), key=lambda timer: timer[1]):
            if deadline <= now and self._timers.pop(name, None) is not None:
                self._fire(name, now)
        if self._hold.due is not None and self._hold.due <= now:
            self._hold.fire(now)
        if self._crossing.due is not None and self._crossing.due <= now:
            self._cross(now)
        self._after()

    def close(self, reason: str, now: float) -> None:
        """End: what is under way gets `drain_s`; then `SessionClosed` comes, after every `response.done`."""
        if self._closing is not None:
            return
        self._closing = reason
        self._hold.end()
        self._crossing.stop()
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
                if self._truncate(event):
                    return
            case "session.update":
                event = with_our_formats(event, "session", ("input", "output"))
            case "response.create":
                event = with_our_formats(event, "response", ("output",))
        if event_id is not None:
            self._clients.ask(event_id, sender)
        self._up(event)

    def _truncate(self, event: Mapping[str, Any]) -> bool:
        """Answer for what no upstream can truncate (any more). Returns whether that was so."""
        item_id, index = str(event.get("item_id")), event.get("content_index")
        # Where we have cut already, our boundary stands (row E21).
        heard_ms = self._voice.truncated_ms(item_id)
        if heard_ms is None and item_id in self._elsewhere:
            # The upstream that has it was told its words alone.
            given_ms = event.get("audio_end_ms")
            heard_ms = given_ms if isinstance(given_ms, int) else None
            if heard_ms is not None:
                self._memory.truncate(item_id, heard_ms)
        if heard_ms is None:
            return False
        self._outbox.event(events.item_truncated(item_id, index if isinstance(index, int) else 0, heard_ms))
        return True

    def _clear(self) -> None:
        """JS clients interrupt with this alone (row E17), so what is being made must stop too."""
        if self._voice.busy or self._voice.holding:
            active = self._begun.responses
            self._voice.cut(active)
            for response_id in active:
                self._send({"type": "response.cancel", "response_id": response_id})
            self._unanswered.interrupt()
            self._resume()

    # The upstream's events.

    def _opened(self, event: UpstreamOpened, now: float) -> None:
        again = self._session is not None
        if self._open:
            # At a quiet moment the next one was opened before this one was let go.
            self._part(f"handed over to {event.name}", now)
        self._adopt(event.session)
        self._open = True
        self._paused = False
        self._caller.carry()
        self._replaying, self._next_replaying = self._next_replaying, set()
        self._hold.end()
        if self._closing is None:
            self._crossing.opened(event.session.get("expires_at"), now, self._wall_offset + now)
        session_id = event.session.get("id")
        self._outbox.note("upstream", f"{event.name} is open", opened=event.name, session_id=session_id)
        if not again:
            self._clients.greet(self.describe(), event.event_id)
        else:
            self._outbox.event(events.session_updated(self.describe()))
        if self._unanswered.owes_an_answer:
            self._outbox.note("upstream", f"{event.name} is asked for the answer that was due")
        for waiting in self._unanswered.resume():
            self._up(waiting)

    def _lost(self, event: UpstreamLost, now: float) -> None:
        self._outbox.note("upstream", f"lost: {event.reason}", lost=True)
        self._part(event.reason, now)
        if self._closing is None:
            self._hold.begin(now)
            self._reopen()

    def _part(self, reason: str, now: float) -> None:
        """A connection is over, and with it all that was under way on it."""
        self._open = False
        self._crossing.end()
        self._unanswered.lose(answers=self._answering)
        self._fail_active(reason)
        self._voice.finish_all()
        self._transcribing.clear()
        self._elsewhere = self._voice.item_ids

    def _reopen(self) -> None:
        turn = self._caller.sound if self._caller.speaking else b""
        items = self._memory.replay() if turn else self._memory.replay(self._turn_item, self._caller.sound)
        self._next_replaying = {str(item["id"]) for item in items}
        self._outbox.command(ReopenUpstream(self.describe(), items, turn))

    def _receive(self, received: UpstreamEvent, now: float) -> None:
        event = received.event
        kind = str(event.get("type"))
        if kind in _SWALLOWED or kind.startswith("output_audio_buffer."):
            return
        if self._replaying and self._is_replay(kind, event):
            return
        if not self._begun.receive(event):
            return
        self._crossing.receive(kind, now)
        self._memory.receive(event)
        self._unanswered.receive(event, answers=self._answering)
        self._turns.receive(kind, now)
        match kind:
            case "response.output_audio.delta" | "response.output_audio.done":
                self._play(event, received.audio)
            case "session.updated":
                if session := _object(event.get("session")):
                    self._adopt(self.describe() | session)
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
                self._caller.start()
                if self._interrupting:
                    self._unanswered.interrupt()
                    self._voice.cut(self._begun.responses)
                    self._resume()
            case "input_audio_buffer.speech_stopped":
                self._caller.end()
            case "input_audio_buffer.cleared":
                self._caller.discard()
            case "input_audio_buffer.committed":
                self._caller.stop()
                self._turn_item = item_id
                if _input(self._session).get("transcription"):
                    self._transcribing.append(item_id)
            case "conversation.item.input_audio_transcription.completed":
                self._transcribed(item_id)
                self._outbox.note("heard", str(event.get("transcript")), item_id=item_id)
            case "conversation.item.input_audio_transcription.failed":
                self._transcribed(item_id)
            case "response.output_audio_transcript.done":
                said = str(event.get("transcript"))
                self._outbox.note("said", said, response_id=event.get("response_id"))
            case "response.function_call_arguments.done":
                self._outbox.note("tool_call", f"{event.get('name')}({event.get('arguments')})")
            case "response.done":
                self._done(_object(event.get("response")))

    def _transcribed(self, item_id: str) -> None:
        if item_id in self._transcribing:
            self._transcribing.remove(item_id)

    def _done(self, response: dict[str, Any]) -> None:
        response_id = str(response.get("id"))
        self._voice.finish(response_id)
        self._usage.add(_object(response.get("usage")))
        status = str(response.get("status"))
        if self._unanswered.turn is None:
            self._caller.forget()
        error = _object(_object(response.get("status_details")).get("error"))
        code = error.get("code") or error.get("type")
        title = f"response {status}" + (f": {code}" if code else "")
        usage = self._usage.to_api()
        self._outbox.note("response", title, response_id=response_id, status=status, code=code, usage=usage)

    def _play(self, event: dict[str, Any], audio: bytes) -> None:
        self._memory.sound(str(event.get("item_id")), len(audio) / self._bytes_per_ms)
        self._voice.play(event, audio)
        if not self._paused and self._voice.ahead_ms > self._max_ahead_ms:
            self._paused = True
            self._outbox.note(
                "upstream", f"{self._voice.ahead_ms // 1000} s ahead of the caller: read no further"
            )
            self._outbox.command(PauseUpstream())

    def _resume(self) -> None:
        if self._paused and self._voice.ahead_ms <= self._max_ahead_ms:
            self._paused = False
            self._outbox.command(ResumeUpstream())

    def _error(self, event: dict[str, Any]) -> None:
        error = _object(event.get("error"))
        if error.get("code") == "session_expired":
            # Its connection ends with this, our call does not.
            self._outbox.note("upstream", "its session reached its time limit")
            return
        self._outbox.note("error", f"upstream: {error.get('message')}", code=error.get("code"))
        self._clients.answer(event, error.get("event_id"))

    def _is_replay(self, kind: str, event: dict[str, Any]) -> bool:
        item_id = str(_object(event.get("item")).get("id"))
        if item_id not in self._replaying or kind not in _REPLAYED:
            return False
        if kind == "conversation.item.done":
            self._replaying.discard(item_id)
        return True

    # Parts.

    def _adopt(self, session: dict[str, Any]) -> None:
        self._session = without_secrets(session)
        turn_detection = _input(session).get("turn_detection", {})
        self._interrupting = (
            turn_detection is not None and _object(turn_detection).get("interrupt_response") is not False
        )
        self._answering = (
            turn_detection is not None and _object(turn_detection).get("create_response") is not False
        )

    def _cut_short(self, item_id: str, content_index: int, heard_ms: int, made_ms: int) -> None:
        self._memory.truncate(item_id, heard_ms)
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
            self._up({"event_id": f"{OWN}{self._own}", **event})

    def _up(self, event: Mapping[str, Any]) -> None:
        if self._open:
            self._memory.ask(event)
            self._unanswered.ask(event)
            self._outbox.command(SendUpstream(event))
        elif not self._unanswered.hold(event):
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
            title = f"response failed: {message}"
            self._outbox.note(
                "response", title, response_id=response_id, status="failed", code="upstream_lost"
            )

    def _cross(self, now: float) -> None:
        """An upstream says when its session ends: go on in a new one at a quiet moment before that."""
        busy = self._begun or self._voice.busy or self._caller.speaking or self._unanswered
        if self._crossing.fire(now, quiet=not busy):
            self._reopen()

    def _fire(self, name: str, now: float) -> None:
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
            self._outbox.note("usage", self._usage.title, usage=self._usage.to_api())
        self._outbox.put(SessionClosed(self._closing))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _input(session: Any) -> dict[str, Any]:
    return _object(_object(_object(session).get("audio")).get("input"))
