"""The caller's side of a session: audio becomes turns, turns become items, items get their words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from offhook.realtime import server_events as events
from offhook.realtime.conversation import Conversation, Item
from offhook.realtime.engine import Transcribe, Transcribed, TranscriptionFailed, VoiceActivity
from offhook.realtime.input_buffer import InputBuffer
from offhook.realtime.latency import TurnLatency
from offhook.realtime.outbox import Outbox
from offhook.realtime.session_config import SessionConfig
from offhook.realtime.turns import (
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
    TurnDetector,
    TurnEvent,
)
from offhook.realtime.validation import RequestError

__all__ = ["Commit", "Listening"]

TRANSCRIPT_TIMEOUT_S = 10.0
"An engine that does not answer a `Transcribe` in this time will not: the turn goes on without words."
MIN_COMMIT_MS = 100
LOOKBACK_MS = 1000
"Kept while nobody speaks, besides the prefix padding: the engine tells of speech a little after it began."


@dataclass(slots=True)
class Utterance:
    """Speech that is going on, or whose words are not known yet."""

    item_id: str
    start_ms: float
    revision: int = 0
    result: Transcribed | TranscriptionFailed | None = None
    "The answer to the newest revision."
    deadline: float | None = None
    "When to stop waiting for words, once committed."
    item: Item | None = None
    "Whose words they are, when the conversation does not have it: no client is told."

    def take(self, result: Transcribed | TranscriptionFailed) -> bool:
        if result.revision != self.revision:
            return False
        self.result = result
        return True


@dataclass(frozen=True, slots=True)
class Commit:
    """The caller's audio became an item."""

    item: Item
    text: str | None
    "Its words, where they are known already."
    latency: TurnLatency | None
    "`None` when nobody said anything."
    by_client: bool = False


class Listening:
    """
    Emits the input side's events (rows O02, O06, E24, E25) and asks the engine for words.

    `on_started` is called when speech starts, with the id that its item will have; `on_commit` for each new user item;
    `on_settled` when an item's words are known, or will never be.
    """

    def __init__(
        self,
        config: SessionConfig,
        conversation: Conversation,
        outbox: Outbox,
        bytes_per_ms: int,
        *,
        on_started: Callable[[str, float], None],
        on_commit: Callable[[Commit, float], None],
        on_settled: Callable[[Item, float], None],
    ) -> None:
        self._config = config
        self._conversation = conversation
        self._outbox = outbox
        self._bytes_per_ms = bytes_per_ms
        self._on_started = on_started
        self._on_commit = on_commit
        self._on_settled = on_settled
        self.buffer = InputBuffer(bytes_per_ms)
        self._detector = TurnDetector(config.audio.input.turn_detection)
        self._utterance: Utterance | None = None
        # Where the engine has listened to. A client may append faster than that goes.
        self._heard_ms = 0.0
        self._pending: dict[str, Utterance] = {}
        self._revision = 0

    @property
    def speaking(self) -> bool:
        return self._utterance is not None

    @property
    def pending(self) -> set[str]:
        """What is being put into words: items of the conversation, and sound that was given for one response alone."""
        return set(self._pending)

    @property
    def pending_items(self) -> set[str]:
        """The conversation's items whose words are not known yet."""
        return {item_id for item_id, utterance in self._pending.items() if utterance.item is None}

    @property
    def ahead_ms(self) -> float:
        """How much has come that the engine has not listened to yet, or does not tell of."""
        return self.buffer.end_ms - self._heard_ms

    def use_format(self, bytes_per_ms: int) -> None:
        """Another audio format; only while nothing was heard."""
        self._bytes_per_ms = bytes_per_ms
        self.buffer = InputBuffer(bytes_per_ms)

    def configure(self, config: SessionConfig) -> None:
        before, self._config = self._config, config
        if config.audio.input.turn_detection != before.audio.input.turn_detection:
            self._detector.configure(config.audio.input.turn_detection)
            if config.audio.input.turn_detection is None:
                self._drop()

    # Inputs.

    def receive_activity(self, activity: VoiceActivity, now: float) -> None:
        self._heard_ms = activity.end_ms
        # What was committed or cleared meanwhile is no speech of a turn to come.
        late = activity.end_ms <= self.buffer.committed_ms
        for event in self._detector.receive_activity(0.0 if late else activity.probability, activity.end_ms):
            self._handle_turn(event, now)
        if self._config.audio.input.turn_detection is not None and self._utterance is None:
            held_from = self._detector.held_from_ms
            padding = self._detector.prefix_padding_ms + LOOKBACK_MS
            self.buffer.release(held_from if held_from is not None else activity.end_ms - padding)

    def receive_transcription(self, result: Transcribed | TranscriptionFailed, now: float) -> None:
        utterance = self._utterance
        if utterance is not None and utterance.item_id == result.item_id:
            if utterance.take(result) and isinstance(result, Transcribed):
                for event in self._detector.receive_transcript(result.text):
                    self._handle_turn(event, now)
            return
        pending = self._pending.get(result.item_id)
        if pending is not None and pending.take(result):
            self._settle(pending, now)

    def commit(self, now: float) -> None:
        """The client ends the turn (row E24). Raises `RequestError` when there is nothing to commit."""
        if self.buffer.held_ms < MIN_COMMIT_MS:
            raise RequestError(
                "input_audio_buffer_commit_empty",
                f"Error committing input audio buffer: buffer too small. Expected at least {MIN_COMMIT_MS}ms of audio, "
                f"but buffer only has {self.buffer.held_ms:.2f}ms of audio.",
            )
        utterance = self._utterance or Utterance(self._outbox.new_id("item"), self.buffer.committed_ms)
        self._utterance = None
        self._detector.reset()
        end_ms = self.buffer.end_ms
        self._transcribe(utterance, end_ms)
        self._commit(utterance, end_ms, end_ms, now, by_client=True)

    def clear(self) -> None:
        """The client throws away what was not committed (row E25)."""
        self._drop()
        self._detector.reset()
        self.buffer.commit(self.buffer.end_ms)
        self._outbox.event(events.input_cleared())

    def time_out(self, start_ms: float, now: float) -> None:
        """Nobody said anything since `start_ms` (row O14)."""
        end_ms = self.buffer.end_ms
        # Where a client sends no sound, its clock stands still.
        utterance = Utterance(self._outbox.new_id("item"), min(start_ms, end_ms))
        self._outbox.event(
            events.timeout_triggered(utterance.item_id, round(utterance.start_ms), round(end_ms))
        )
        self._commit(utterance, end_ms, end_ms, now, transcribe=False)

    def transcribe_item(self, item: Item, now: float) -> None:
        """Ask for the words of a user item that a client made from audio; clients hear of the conversation's."""
        utterance = Utterance(item.id, 0.0, deadline=now + TRANSCRIPT_TIMEOUT_S)
        utterance.item = item if item.id not in self._conversation else None
        self._pending[item.id] = utterance
        self._ask(utterance, bytes(item.audio))

    def forget(self, item_id: str) -> None:
        """An item was deleted; nobody waits for its words."""
        self._pending.pop(item_id, None)

    def stop(self, now: float) -> None:
        """The caller is gone: what was being said becomes an item."""
        utterance, self._utterance = self._utterance, None
        self._detector.reset()
        if utterance is not None:
            end_ms = self.buffer.end_ms
            self._transcribe(utterance, end_ms)
            self._outbox.event(events.speech_stopped(utterance.item_id, round(end_ms)))
            self._commit(utterance, end_ms, end_ms, now)

    def next_timer(self) -> float | None:
        if not self._pending:
            return None
        return min((u.deadline for u in self._pending.values() if u.deadline is not None), default=None)

    def handle_timer(self, now: float) -> None:
        self._give_up(now, now, "the transcription did not come in time")

    def give_up(self, now: float) -> None:
        """Stop waiting for any words."""
        self._give_up(now, float("inf"), "the session is over")

    # Turns.

    def _handle_turn(self, event: TurnEvent, now: float) -> None:
        utterance = self._utterance
        match event:
            case SpeechStarted():
                self._start(event, now)
            case SpeechPaused() if utterance is not None:
                self._transcribe(utterance, min(self.buffer.end_ms, self._heard_ms))
            case SpeechResumed() if utterance is not None:
                utterance.result = None
            case SpeechStopped() if utterance is not None:
                self._utterance = None
                self._outbox.event(events.speech_stopped(utterance.item_id, round(event.end_ms)))
                self._commit(utterance, event.speech_end_ms, event.end_ms, now)

    def _start(self, event: SpeechStarted, now: float) -> None:
        padded = event.start_ms - self._detector.prefix_padding_ms
        start_ms = max(padded, self.buffer.committed_ms, self.buffer.start_ms, 0.0)
        self._utterance = Utterance(self._outbox.new_id("item"), start_ms)
        self._conversation.reserve(self._utterance.item_id)
        self._outbox.event(events.speech_started(self._utterance.item_id, round(start_ms)))
        self._on_started(self._utterance.item_id, now)

    def _drop(self) -> None:
        """What is being said will be no item."""
        utterance, self._utterance = self._utterance, None
        if utterance is not None:
            self._conversation.release(utterance.item_id)

    def _transcribe(self, utterance: Utterance, end_ms: float) -> None:
        utterance.result = None
        self._ask(utterance, self.buffer.read(utterance.start_ms, end_ms))

    def _ask(self, utterance: Utterance, audio: bytes) -> None:
        # Counted on from item to item: a client may delete one and make it anew while its words are under way.
        self._revision += 1
        utterance.revision = self._revision
        asked = self._config.audio.input.transcription
        language = asked.spoken if asked is not None else None
        prompt = asked.prompt if asked is not None else None
        self._outbox.command(
            Transcribe(utterance.item_id, utterance.revision, audio, language or None, prompt or None)
        )

    def _commit(
        self,
        utterance: Utterance,
        speech_end_ms: float,
        end_ms: float,
        now: float,
        *,
        transcribe: bool = True,
        by_client: bool = False,
    ) -> None:
        audio = self.buffer.read(utterance.start_ms, end_ms)
        self.buffer.commit(end_ms)
        item = Item(
            utterance.item_id, "message", role="user", content=[{"type": "input_audio", "transcript": None}]
        )
        item.audio += audio
        item.audio_ms = len(audio) / self._bytes_per_ms
        previous = self._conversation.append(item)
        self._conversation.release(item.id)
        self._conversation.forget_audio()
        self._outbox.event(events.committed(item.id, previous))
        self._outbox.event(events.item_added(item.to_api(), previous))
        self._outbox.event(events.item_done(item.to_api(), previous))
        text = utterance.result.text if isinstance(utterance.result, Transcribed) else None
        latency = TurnLatency(self.buffer.time_of(speech_end_ms), now) if transcribe else None
        if transcribe:
            utterance.deadline = now + TRANSCRIPT_TIMEOUT_S
            self._pending[item.id] = utterance
        self._on_commit(Commit(item, text, latency, by_client), now)
        if transcribe and utterance.result is not None:
            self._settle(utterance, now)

    # Words.

    def _settle(self, utterance: Utterance, now: float) -> None:
        if self._pending.pop(utterance.item_id, None) is None:
            return
        item = utterance.item or self._conversation.get(utterance.item_id)
        if item is None:
            return
        result = utterance.result
        index = item.audio_index or 0
        told = self._config.audio.input.transcription is not None and utterance.item is None
        if isinstance(result, Transcribed):
            item.transcript = result.text
            self._outbox.note(
                "heard", result.text or "(no words)", item_id=item.id, seconds=round(result.seconds, 2)
            )
            if told and result.text:
                self._outbox.event(events.transcription_delta(item.id, index, result.text))
            if told:
                seconds = round(result.seconds, 3)
                self._outbox.event(events.transcription_completed(item.id, index, result.text, seconds))
        elif result is not None:
            self._outbox.note(
                "error", f"transcription failed: {result.message}", item_id=item.id, code=result.code
            )
            if told:
                self._outbox.event(events.transcription_failed(item.id, index, result.code, result.message))
        self._on_settled(item, now)

    def _give_up(self, now: float, due: float, message: str) -> None:
        for utterance in list(self._pending.values()):
            if utterance.deadline is not None and utterance.deadline <= due:
                utterance.result = TranscriptionFailed(
                    utterance.item_id, utterance.revision, "transcription_timeout", message
                )
                self._settle(utterance, now)
