"""
The Realtime session: client events, audio and engine results in; server events, engine commands and sound out.

Pure: no socket, clock or task. The driver (`offhook.realtime.runner`) calls an input with the time, then takes
`outputs()` in order and arms one timer for `next_timer()`. `docs/explanation/design.md` states this contract once for
all rooms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from offhook.realtime import client_events as client
from offhook.realtime import server_events as events
from offhook.realtime.appended_audio import FRAME_MS, AppendedAudio
from offhook.realtime.client_events import ClientEvent, ClientEventError, parse_client_event
from offhook.realtime.conversation import Conversation, ConversationRules, Item
from offhook.realtime.engine import (
    AudioFormat,
    EngineEvent,
    EngineFailed,
    Transcribed,
    TranscriptionFailed,
    UpstreamEvent,
    UpstreamLost,
    UpstreamNote,
    UpstreamOpened,
    VoiceActivity,
)
from offhook.realtime.item_requests import ItemRequests
from offhook.realtime.listening import Commit, Listening
from offhook.realtime.long_events import Ear
from offhook.realtime.outbox import (
    ClearPlayout,
    HearAudio,
    Outbox,
    Output,
    PlayAudio,
    RetrievedItem,
    ServerEvent,
    SessionClosed,
    SessionExpired,
    SessionNote,
)
from offhook.realtime.playout import Playout
from offhook.realtime.response import ResponsePlan
from offhook.realtime.response_requests import ResponseRequests
from offhook.realtime.responses import Responses
from offhook.realtime.session_config import SessionConfig, merge_update
from offhook.realtime.session_update import settle_update
from offhook.realtime.sideband_audio import bytes_per_ms, common_format, sample_bytes
from offhook.realtime.validation import RequestError
from offhook.weak import weakly

__all__ = [
    "ClearPlayout",
    "HearAudio",
    "Output",
    "PlayAudio",
    "RetrievedItem",
    "ServerEvent",
    "Session",
    "SessionClosed",
    "SessionExpired",
    "SessionNote",
]

MAX_DURATION_S = 3600.0
DRAIN_S = 1.0
"How long a closing session waits for words and answers that are under way (row S17)."
AHEAD_MS = 1000
"""
Appended sound that may wait for the engine's ear. More comes no faster than it was spoken, as a caller's does: the ear
is one for all sessions, and a client's minutes must not come before another's next word.
"""


class Session:
    """
    One session. Inputs take `now` (seconds, monotonic); after each, take `outputs()`.

    `audio_format` is the sound's format towards the engine and the caller; `new_id` makes an id from its prefix.
    With `sip`, the sound goes to a phone (`PlayAudio`, `output_audio_buffer.*`, truncation by the played clock);
    without, a client sends it (`HearAudio`) and plays it, and what it does not truncate counts as heard. Then the
    format follows `session.update` until the first sound or response, so that as little as possible is converted.
    `needs_transcript`: the engine answers words, so a response waits for them.
    """

    def __init__(
        self,
        config: SessionConfig,
        *,
        session_id: str,
        audio_format: AudioFormat,
        new_id: Callable[[str], str],
        sip: bool,
        needs_transcript: bool = True,
        max_duration_s: float = MAX_DURATION_S,
        drain_s: float = DRAIN_S,
        rules: ConversationRules | None = None,
    ) -> None:
        self.id = session_id
        self.config = config
        self.new_id = new_id
        self.audio_format = audio_format
        self.sip = sip
        self.closed = False
        self._needs_transcript = needs_transcript
        self._max_duration_s = max_duration_s
        self._drain_s = drain_s
        self._expires_at = 0
        self._outbox = Outbox(new_id)
        self._clients: dict[int, bool] = {}
        self._timers: dict[str, float] = {}
        self._closing: str | None = None
        self._responded = False
        self._interrupting: set[str] = set()
        self._idle_from_ms = 0.0
        self._idle_timeout_s = config.audio.input.idle_timeout_s
        self._format_stands = sip
        "Nothing changes `audio_format` any more."
        self._appended = AppendedAudio(audio_format)
        self._hear_at = 0.0
        "When sound that was spoken as fast as it is heard would come next."
        self._conversation = Conversation(
            new_id("conv"), bytes_per_ms=bytes_per_ms(audio_format), rules=rules
        )
        self._items = ItemRequests(self._conversation, self._outbox)
        width = sample_bytes(audio_format)
        playout = Playout(bytes_per_ms(audio_format) // width, width) if sip else None
        hears = self._clients.values()
        self._responses = Responses(
            self._conversation, self._outbox, audio_format, playout, lambda: any(hears)
        )
        self._listening = Listening(
            config,
            self._conversation,
            self._outbox,
            bytes_per_ms(audio_format),
            on_started=weakly(self._speech_started),
            on_commit=weakly(self._committed),
            on_settled=weakly(self._settled),
        )
        self._requests = ResponseRequests(
            self._conversation, self._items, self._listening, self._responses, needs_transcript
        )
        self.receive_audio = self._listening.buffer.receive_audio
        """`receive_audio(audio, now)`: the caller's next frame. Bound directly, since it runs 50 times a second."""

    # Outputs.

    def outputs(self) -> list[Output]:
        """Take everything that happened since the last call, in order."""
        return self._outbox.take()

    @property
    def has_outputs(self) -> bool:
        return bool(self._outbox)

    @property
    def conversation(self) -> Conversation:
        return self._conversation

    def next_timer(self) -> float | None:
        """Return when `handle_timer` must be called, or `None` if nothing is pending."""
        transcript = self._listening.next_timer()
        if not self._timers:
            return transcript
        first = min(self._timers.values())
        return first if transcript is None else min(first, transcript)

    @property
    def behind(self) -> bool:
        """Whether a client's audio waits to be heard: its next event had better wait too."""
        return self._appended.waiting

    def describe(self) -> dict[str, Any]:
        """Return the session object as clients see it (row S13)."""
        return self.config.to_api(session_id=self.id, expires_at=self._expires_at)

    # Inputs.

    def start(self, now: float, wall: float) -> None:
        """The session's time begins. `wall` is seconds since 1970, for `expires_at`."""
        self._expires_at = int(wall + self._max_duration_s)
        self._timers["expiry"] = now + self._max_duration_s

    def attach(self, sender: int, *, audio: bool = False) -> None:
        """A client connected; it gets `session.created` (row O01). `audio`: it wants the agent's sound (row O18)."""
        if self.closed:
            return
        self._clients[sender] = audio or not self.sip
        self._outbox.event(events.session_created(self.describe()), to=sender)

    def detach(self, sender: int) -> None:
        """A client went away; the session goes on (row S15)."""
        self._clients.pop(sender, None)

    @property
    def ear(self) -> Ear:
        """What to make of the sound in an event of many megabytes."""
        return Ear(not self.sip, self.config.audio.input.format.type, self.audio_format)

    def receive_client_event(self, event: client.ClientFrame, *, sender: int, now: float) -> None:
        """Handle a frame from a client. Whatever is wrong with it is told to that client alone (row S21)."""
        if self.closed:
            return
        event_id: str | None = None
        try:
            parsed = parse_client_event(event)
            event_id = parsed.event_id
            self._handle_client_event(parsed, sender, now)
        except ClientEventError as error:
            self._refuse(error, sender, error.event_id or event_id)
        except RequestError as error:
            self._refuse(error, sender, event_id)
        self._after(now)

    def receive_digit(self, digit: str, now: float, received_at: float) -> None:
        """A key was pressed (row O16); `received_at` is seconds since 1970."""
        if not self.closed:
            self._outbox.raw_event(events.dtmf_received(digit, int(received_at)))

    def receive_engine_event(self, event: EngineEvent, now: float) -> None:
        if self.closed:
            return
        match event:
            case VoiceActivity():
                if self._closing is None:
                    self._listening.receive_activity(event, now)
                    if self._appended.waiting:
                        self._arm_append(now)
                if not self._outbox:
                    return
            case Transcribed() | TranscriptionFailed():
                self._listening.receive_transcription(event, now)
            case EngineFailed():
                self._outbox.note("error", f"the engine failed: {event.message}")
                if not self.sip:
                    # A phone call ends; here the client is all there is to tell.
                    message = f"The session ends, because its engine failed: {event.message}"
                    self._outbox.event(events.error(message, code="engine_failed", kind="server_error"))
                self._responses.fail_all(event.message)
                self._listening.give_up(now)
            case UpstreamOpened() | UpstreamEvent() | UpstreamLost() | UpstreamNote():
                pass  # only a `Relay` has an upstream
            case _:
                before = self._responses.active
                self._responses.receive(event, now)
                if before and not self._responses.active:
                    self._responded = True
        self._after(now)

    def playout_progress(self, played_samples: int, now: float) -> None:
        """Set the played clock: how many samples were really sent since the start (decision 7 of the design)."""
        if self._responses.progress(played_samples, now):
            self._update_idle(now)

    def playout_drained(self, played_samples: int, now: float) -> None:
        """The sender's queue ran empty."""
        self._responses.drain(played_samples, now)
        self._update_idle(now)

    def handle_timer(self, now: float) -> None:
        """Do everything that is due."""
        self._listening.handle_timer(now)
        for name, deadline in sorted(self._timers.items(), key=lambda timer: timer[1]):
            if deadline <= now and self._timers.pop(name, None) is not None:
                self._fire(name, now)
        self._after(now)

    def close(self, reason: str, now: float) -> None:
        """
        The caller is gone, or the session must end. What is under way gets `drain_s` to finish, but no
        response of a call without a client; then `SessionClosed` comes, after one `response.done` for every response
        (rows S17, O12).
        """
        if self._closing is not None:
            return
        self._closing = reason
        self._appended.clear()
        nobody_waits = not self.sip and not self._clients
        self._timers = {"drain": now if nobody_waits else now + self._drain_s}
        self._listening.stop(now)
        self._responses.muted = True
        if self._responses.sounding:
            self._responses.cut(None)
        if self.sip and not self._clients:
            # The caller will not hear it, and nobody is there to read it or to run its tools.
            self._responses.cancel_all()
        self._after(now)

    # Client events.

    def _handle_client_event(self, event: ClientEvent, sender: int, now: float) -> None:
        if isinstance(event, client.InputAudioBufferAppend):
            self._append_audio(event, now)
            return
        while self._appended.waiting:
            self._take_frames(self._appended.take(), now)
        match event:
            case client.SessionUpdate():
                self._update(event, sender)
            case client.ResponseCreate():
                self._create_response(event, now)
            case client.ResponseCancel():
                self._requests.cancel(event)
            case client.ItemCreate():
                self._create_item(event, now)
            case client.ItemRetrieve():
                self._items.retrieve(event, self.config.audio, self.audio_format)
            case client.ItemDelete():
                item = self._items.delete(event)
                self._listening.forget(item.id)
                self._responses.settle(item.id, now)
            case client.ItemTruncate():
                self._items.truncate(event)
            case client.InputAudioBufferCommit():
                self._take_frames(self._appended.finish(), now)
                self._listening.commit(now)
            case client.InputAudioBufferClear():
                self._appended.clear()
                self._listening.clear()
            case client.OutputAudioBufferClear():
                if not self.sip:
                    message = (
                        "output_audio_buffer.clear is for phone calls and WebRTC: on a WebSocket the client plays the "
                        "audio. Stop it there, then send response.cancel and conversation.item.truncate."
                    )
                    raise RequestError("unsupported_event", message, "type")
                # JS clients interrupt with this alone (row E17), so what is being made must stop too.
                if self._responses.sounding:
                    self._responses.cut("client_cancelled")

    def _update(self, event: client.SessionUpdate, sender: int) -> None:
        if "session" not in event.model_fields_set:
            raise ClientEventError(
                "missing_required_parameter", "Missing required parameter: 'session'.", "session"
            )
        merged = self._merge(event.session)
        updated, faults = settle_update(self.config, merged, has_spoken=self._responses.has_spoken)
        for fault in faults:
            self._refuse(fault, sender, event.event_id)
        self.config = updated
        if not self._format_stands:
            self._suit_format()
        self._idle_timeout_s = updated.audio.input.idle_timeout_s
        self._listening.configure(updated)
        self._outbox.event(events.session_updated(self.describe()))

    def _merge(self, session: Any) -> SessionConfig:
        return merge_update(self.config, session)

    def _suit_format(self) -> None:
        """There is no sound yet: have the engine hear and speak as the client does."""
        audio = self.config.audio
        audio_format = common_format(audio.input.format.type, audio.output.format.type)
        if audio_format != self.audio_format:
            self.audio_format = audio_format
            self._appended = AppendedAudio(audio_format)
            self._conversation.use_format(self._bytes_per_ms)
            self._responses.use_format(audio_format)
            self._listening.use_format(self._bytes_per_ms)
            self.receive_audio = self._listening.buffer.receive_audio

    def _create_response(self, event: client.ResponseCreate, now: float) -> None:
        self._format_stands = True
        if self._closing is not None:
            raise RequestError(
                "session_closing", "The session is ending: response.create is no longer served."
            )
        self._requests.create(event, self.config, self.audio_format, now)

    def _create_item(self, event: client.ItemCreate, now: float) -> None:
        self._format_stands = True
        item = self._items.create(event, self.config.audio, self.audio_format)
        if self._needs_transcript and item.needs_words:
            self._listening.transcribe_item(item, now)

    def _append_audio(self, event: client.InputAudioBufferAppend, now: float) -> None:
        if self.sip:
            message = (
                "input_audio_buffer.append is not used on a phone call: the audio comes from the caller."
            )
            raise RequestError("unsupported_event", message, "type")
        source = self.config.audio.input.format.type
        audio = client.decode_audio(event.audio, "audio", sample_bytes(source), None)
        self._format_stands = True
        self._appended.add(audio, source)
        self._hear(now)

    def _hear(self, now: float) -> None:
        """Hear some of what was appended; the rest when the timer comes, unless another event does."""
        if now >= self._hear_next_at(now):
            frames = self._appended.take()
            self._hear_at = now + len(frames) * FRAME_MS / 1000
            self._arm_append(now)  # first, so that no fault leaves the rest without a timer
            self._take_frames(frames, now)
        self._arm_append(now)

    def _arm_append(self, now: float) -> None:
        if self._appended.waiting:
            self._timers["append"] = self._hear_next_at(now)
        else:
            self._timers.pop("append", None)

    def _hear_next_at(self, now: float) -> float:
        """The engine's workers listen to other sessions too: what they have not done yet is bounded."""
        return now if self._listening.ahead_ms < AHEAD_MS else max(now, self._hear_at)

    def _take_frames(self, frames: list[bytes], now: float) -> None:
        if self._closing is not None:
            return
        for audio in frames:
            self.receive_audio(audio, now)
            self._outbox.put(HearAudio(audio))

    # The conversation's turns.

    def _speech_started(self, item_id: str, now: float) -> None:
        turn_detection = self.config.audio.input.turn_detection
        if turn_detection is None or not turn_detection.interrupt_response:
            return
        if self._responses.cut("turn_detected"):
            self._interrupting.add(item_id)

    def _committed(self, commit: Commit, now: float) -> None:
        turn_detection = self.config.audio.input.turn_detection
        if commit.by_client or self._closing is not None:
            return
        if turn_detection is None or not turn_detection.create_response:
            return
        if commit.text == "" and self._is_noise(commit.item):
            self._outbox.note("heard", "noise: no words, so no response", item_id=commit.item.id)
            return
        if self._responses.current is not None:
            self._outbox.note("response", "none: another response is in progress", item_id=commit.item.id)
            return
        waits_for = self._listening.pending_items if self._needs_transcript else set()
        plan = ResponsePlan.create(self.config)
        self._responses.create(plan, waits_for=waits_for, turn=commit.item.id, latency=commit.latency)

    def _settled(self, item: Item, now: float) -> None:
        response = self._responses.answering(item.id)
        if response is not None and item.transcript == "" and self._is_noise(item):
            self._responses.cancel(response, "turn_detected")
        self._interrupting.discard(item.id)
        self._responses.settle(item.id, now)

    def _is_noise(self, item: Item) -> bool:
        """Whether a turn without words needs no answer. If it silenced the agent, silence would be worse."""
        return self._needs_transcript and item.id not in self._interrupting

    # Time.

    def _fire(self, name: str, now: float) -> None:
        if name == "append":
            self._hear(now)
        elif name == "expiry":
            minutes = round(self._max_duration_s / 60)
            message = f"Your session hit the maximum duration of {minutes} minutes."
            self._outbox.event(events.error(message, code="session_expired"))
            self._outbox.put(SessionExpired())
        elif name == "idle":
            self._listening.time_out(self._idle_from_ms, now)
        elif name == "drain":
            self._listening.give_up(now)
            self._responses.cancel_all()

    def _after(self, now: float) -> None:
        self._update_idle(now)
        if self._closing is None or self.closed:
            return
        if not self._responses.active and not self._listening.pending:
            self.closed = True
            self._timers.clear()
            self._outbox.put(SessionClosed(self._closing))

    def _update_idle(self, now: float) -> None:
        """Keep the idle timer (row O14): it runs while the agent has spoken last and the caller says nothing."""
        timeout_s = self._idle_timeout_s
        if timeout_s is None:
            self._timers.pop("idle", None)
            return
        busy = self._responses.active or self._responses.sounding or self._listening.speaking
        if busy or not self._responded or self._closing is not None:
            self._timers.pop("idle", None)
        elif "idle" not in self._timers:
            # Without a call nobody tells when the last word was heard; playing takes as long as the sound is.
            waits_s = max(0.0, self._responses.heard_until - now)
            self._timers["idle"] = now + waits_s + timeout_s
            self._idle_from_ms = self._listening.buffer.end_ms + waits_s * 1000

    # Helpers.

    @property
    def _bytes_per_ms(self) -> int:
        return bytes_per_ms(self.audio_format)

    def _refuse(self, error: RequestError, sender: int, event_id: str | None) -> None:
        self._outbox.event(events.refusal(error, event_id), to=sender)
