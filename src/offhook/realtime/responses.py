"""All responses of a session: who may start one, what the engine makes of it, and what the caller hears of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from offhook.realtime import server_events as events
from offhook.realtime.conversation import Conversation, Item, as_engine_gets
from offhook.realtime.engine import (
    AudioFormat,
    CancelResponse,
    FunctionCallArguments,
    FunctionCallStarted,
    ResponseFinished,
    ResponseSpeech,
    ResponseText,
)
from offhook.realtime.latency import TurnLatency
from offhook.realtime.outbox import ClearPlayout, Outbox, PlayAudio
from offhook.realtime.playout import Playout, PlayoutChange
from offhook.realtime.response import Outcome, Response, ResponsePlan
from offhook.realtime.retention import ContextTooLong, Retention
from offhook.realtime.sideband_audio import bytes_per_ms
from offhook.realtime.validation import RequestError

__all__ = ["ResponseEvent", "Responses"]

ResponseEvent = ResponseSpeech | ResponseText | FunctionCallStarted | FunctionCallArguments | ResponseFinished


@dataclass(slots=True, eq=False)
class Work:
    """A response that is not done."""

    response: Response
    context: list[Item] | None
    "Its own context; `None`: the conversation as it stands when the engine is asked."
    waits_for: set[str] = field(default_factory=set)
    "Items whose words the engine needs first."
    asked: bool = False
    turn: str | None = None
    "The caller's item that this answers of itself; `None` when a client asked for it."
    latency: TurnLatency | None = None


class Responses:
    """
    Keeps the promises of decision 8 of the design: one `response.done` per `response.created`, and nothing from the
    engine for a response that is over. `playout` is `None` when clients play the audio themselves (no call).
    """

    def __init__(
        self,
        conversation: Conversation,
        outbox: Outbox,
        audio_format: AudioFormat,
        playout: Playout | None,
        wants_audio: Callable[[], bool],
    ) -> None:
        self._conversation = conversation
        self._retention = Retention(conversation)
        self._outbox = outbox
        self._audio_format = audio_format
        self._playout = playout
        self._wants_audio = wants_audio
        self._active: dict[str, Work] = {}
        self._generation = 0
        self._unplayed: list[tuple[str, int, TurnLatency]] = []
        self._dead: str | None = None
        self.has_spoken = False
        "Whether there was any assistant audio (row E07)."
        self.muted = False
        "Whether the caller is gone, so that nothing is played."
        self.heard_until = 0.0
        "When a client that plays everything as it comes would have played it. On a call, the played clock knows."

    def use_format(self, audio_format: AudioFormat) -> None:
        """Another audio format; only while no response has begun."""
        self._audio_format = audio_format

    @property
    def current(self) -> Response | None:
        """The response that is being added to the conversation."""
        for work in self._active.values():
            if work.response.plan.in_conversation:
                return work.response
        return None

    @property
    def active(self) -> bool:
        return bool(self._active)

    @property
    def sounding(self) -> bool:
        """Whether the caller hears the agent, or is about to."""
        return self._playout is not None and self._playout.busy

    def find(self, response_id: str | None) -> Response | None:
        """Return an active response by id; without one, the conversation's (row E16)."""
        if response_id is not None:
            work = self._active.get(response_id)
            return work.response if work is not None else None
        return self.current

    # Starting.

    def create(
        self,
        plan: ResponsePlan,
        *,
        context: list[Item] | None = None,
        waits_for: set[str] | None = None,
        turn: str | None = None,
        latency: TurnLatency | None = None,
    ) -> Response:
        """Start a response. Raises `RequestError` when the conversation already has one (row E11)."""
        current = self.current
        if plan.in_conversation and current is not None:
            raise RequestError(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {current.id}. "
                "Wait until the response is finished before creating a new one.",
            )
        self._generation += 1
        response_id = self._outbox.new_id("resp")
        response = Response(
            response_id, self._generation, plan, self._conversation, self._outbox, self._audio_format
        )
        work = Work(response, context, set(waits_for or ()), turn=turn, latency=latency)
        self._active[response_id] = work
        self._ask(work)
        return response

    def settle(self, item_id: str, now: float) -> None:
        """An item's words are known: ask the engine for what waited for them."""
        for work in list(self._active.values()):
            if item_id in work.waits_for:
                work.waits_for.discard(item_id)
                if work.latency is not None:
                    work.latency.transcript = now
                self._ask(work)

    def answering(self, item_id: str) -> Response | None:
        """Return the response to this turn, if it still waits for the turn's words."""
        for work in self._active.values():
            if work.turn == item_id and item_id in work.waits_for:
                return work.response
        return None

    def _ask(self, work: Work) -> None:
        if work.asked:
            return
        if self._dead is not None:
            self._finish(work, _failed("engine_failed", self._dead))
            return
        if work.waits_for:
            return
        try:
            context = self._context(work)
        except ContextTooLong as error:
            self._finish(work, _failed("context_length_exceeded", str(error), "invalid_request_error"))
            return
        work.asked = True
        self._outbox.command(work.response.respond(context))

    def _context(self, work: Work) -> list[dict[str, Any]]:
        if work.context is not None:
            return as_engine_gets(work.context)
        items = self._retention.items(work.response.plan)
        if left_out := self._retention.left_out:
            title = f"the conversation is too long: its {left_out} oldest items are left out from now on"
            self._outbox.note("session", title, response_id=work.response.id)
        return items

    # What the engine makes.

    def receive(self, event: ResponseEvent, now: float) -> None:
        work = self._active.get(event.response_id)
        if work is None or work.response.generation != event.generation or not work.asked:
            return
        response = work.response
        match event:
            case ResponseSpeech():
                self._speak(work, event, now)
            case ResponseText():
                self._mark_text(work, now)
                response.write(event.text)
            case FunctionCallStarted():
                self._mark_text(work, now)
                response.start_call(event.call_id, event.name)
            case FunctionCallArguments():
                response.add_arguments(event.call_id, event.delta)
            case ResponseFinished():
                self._finish(work, _outcome_of(event), event)

    def _speak(self, work: Work, event: ResponseSpeech, now: float) -> None:
        response = work.response
        if self.muted:
            # What nobody can hear was not said.
            self.cancel(response, None)
            return
        self._mark_text(work, now)
        if not response.plan.speaks:
            if event.text:
                response.write(event.text)
            return
        item = response.open_message("audio")
        # The clock starts before the first words are told (row O03).
        if self._playout is not None and event.audio:
            self._outbox.put(PlayAudio(event.audio))
            if work.latency is not None and work.latency.first_audio is None:
                self._unplayed.append((response.id, self._playout.end, work.latency))
            self.changed(self._playout.add(response.id, item, event.audio))
        if event.audio:
            self.has_spoken = True
            self._play_at_client(event.audio, now)
            if work.latency is not None and work.latency.first_audio is None:
                work.latency.first_audio = now
        response.speak(event.text, event.audio, tell_audio=self._wants_audio())

    def _play_at_client(self, audio: bytes, now: float) -> None:
        if self._playout is None:
            seconds = len(audio) / bytes_per_ms(self._audio_format) / 1000
            self.heard_until = max(self.heard_until, now) + seconds

    def _mark_text(self, work: Work, now: float) -> None:
        if work.latency is not None and work.latency.first_text is None:
            work.latency.first_text = now

    # Ending.

    def cancel(self, response: Response, reason: str | None) -> None:
        work = self._active.get(response.id)
        if work is not None:
            if work.asked:
                self._outbox.command(CancelResponse(response.id))
            self._finish(work, Outcome("cancelled", reason))

    def cancel_all(self) -> None:
        for work in list(self._active.values()):
            self.cancel(work.response, None)

    def fail_all(self, message: str) -> None:
        """The engine is gone: nothing that is asked of it will be answered, now or later."""
        self._dead = message
        for work in list(self._active.values()):
            self._finish(work, _failed("engine_failed", message))

    def _finish(self, work: Work, outcome: Outcome, event: ResponseFinished | None = None) -> None:
        response = work.response
        del self._active[response.id]
        response.finish(outcome)
        self._conversation.forget_audio()
        self._note_done(work, outcome, event)
        if self._playout is not None:
            self.changed(self._playout.finish(response.id))

    # What the caller hears.

    def changed(self, changes: list[PlayoutChange]) -> None:
        """Tell what the played clock showed (rows O03, O04)."""
        for change in changes:
            started = change.kind == "started"
            self._outbox.event(
                events.audio_started(change.response_id)
                if started
                else events.audio_stopped(change.response_id)
            )

    def progress(self, played: int, now: float) -> bool:
        """Set the played clock; return whether the caller heard something begin or end."""
        if self._playout is None:
            return False
        changes = self._playout.progress(played)
        if changes:
            self.changed(changes)
        while self._unplayed and played > self._unplayed[0][1]:
            response_id, _, latency = self._unplayed.pop(0)
            latency.first_played = now
            self._note_turn(response_id, latency)
        return bool(changes)

    def drain(self, played: int, now: float) -> None:
        if self._playout is not None:
            self.progress(played, now)
            self.changed(self._playout.drain(played))

    def cut(self, reason: str | None) -> bool:
        """
        Stop the agent's voice (rows O09, E17): clear, truncate to what was heard, cancel what was being made.

        Returns whether there was anything to stop.
        """
        cut_short = set()
        self.heard_until = 0.0
        playout = self._playout
        stopped = playout is not None and playout.busy
        if playout is not None and stopped:
            sounding = playout.sounding
            self._outbox.put(ClearPlayout())
            cuts = playout.cut()
            if sounding is not None:
                self._outbox.event(events.audio_cleared(sounding))
            for cut in cuts:
                cut_short.add(cut.response_id)
                self._truncate(cut.item, cut.heard_ms)
            self._unplayed.clear()
        for work in list(self._active.values()):
            if work.response.plan.in_conversation or work.response.id in cut_short:
                stopped = True
                self.cancel(work.response, reason)
        return stopped

    def _truncate(self, item: Item, heard_ms: int) -> None:
        # A client may have cut it shorter than it was heard.
        heard_ms = min(heard_ms, int(item.audio_ms)) if item.truncated else heard_ms
        self._conversation.truncate(item, heard_ms)
        if self._conversation.get(item.id) is item:
            self._outbox.event(events.item_truncated(item.id, item.audio_index or 0, heard_ms))
            self._outbox.note("interrupted", f"heard {heard_ms} ms: {item.transcript}", item_id=item.id)

    # Notes.

    def _note_done(self, work: Work, outcome: Outcome, event: ResponseFinished | None) -> None:
        response = work.response
        if spoken := response.spoken:
            self._outbox.note("said", spoken, response_id=response.id, status=outcome.status)
        for call in response.calls:
            self._outbox.note(
                "tool_call", f"{call.name}({call.arguments})", response_id=response.id, call_id=call.call_id
            )
        timings = {"timings_ms": dict(event.timings)} if event is not None and event.timings else {}
        reason = outcome.reason or (outcome.error or {}).get("message")
        title = f"response {outcome.status}" + (f": {reason}" if reason else "")
        code = (outcome.error or {}).get("code")
        self._outbox.note(
            "response", title, response_id=response.id, status=outcome.status, code=code, **timings
        )
        awaits_packet = any(entry[0] == response.id for entry in self._unplayed)
        if work.latency is not None and work.latency.first_played is None and not awaits_packet:
            self._note_turn(response.id, work.latency)

    def _note_turn(self, response_id: str, latency: TurnLatency) -> None:
        details = latency.details()
        first = details.get("first_played_ms", details.get("first_audio_ms", details.get("first_text_ms")))
        title = "no answer" if first is None else f"answered {first} ms after the caller's last word"
        self._outbox.note("turn", title, response_id=response_id, **details)


def _outcome_of(event: ResponseFinished) -> Outcome:
    if event.status == "failed":
        return _failed(
            event.error_code or "engine_error", event.error_message or "The engine could not answer."
        )
    reason = event.reason or "max_output_tokens" if event.status == "incomplete" else None
    return Outcome(event.status, reason, None, event.input_tokens, event.output_tokens, event.cached_tokens)


def _failed(code: str, message: str, kind: str = "server_error") -> Outcome:
    return Outcome("failed", error={"type": kind, "code": code, "message": message})
