"""
What holds whatever clients, caller, engine and clock do, in any order (rows O01 to O12, S13 to S17, S21, V01, V14).

The machine does; `testbed.session_laws` judges. Both kinds of session: a phone call's, and a client's own.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from offhook.realtime.engine import (
    EngineEvent,
    EngineFailed,
    FunctionCallArguments,
    FunctionCallStarted,
    Respond,
    ResponseFinished,
    ResponseSpeech,
    ResponseText,
    Transcribe,
    Transcribed,
    TranscriptionFailed,
    UpstreamEvent,
    UpstreamLost,
    UpstreamNote,
    UpstreamOpened,
    VoiceActivity,
)
from offhook.realtime.outbox import HearAudio, Output, SessionNote
from offhook.realtime.session import Session
from offhook.realtime.session_config import parse_accept
from offhook.realtime.sideband_audio import bytes_per_ms
from testbed.client_frames import CONFIGS, item_event, item_to_create, response_params, wrong_frames
from testbed.session_laws import SessionLaws

FRAME_S, FRAME_MS = 0.02, 20
DRAIN_S = 1.0
ENDS: list[dict[str, Any]] = [
    {},
    {"status": "failed", "error_code": "brain_down", "error_message": "No brain."},
    {"status": "failed"},
    {"status": "incomplete", "reason": "content_filter"},
    {"status": "incomplete"},
]
UPSTREAM: list[EngineEvent] = [
    UpstreamOpened("elsewhere", {}),
    UpstreamEvent({"type": "response.created"}),
    UpstreamLost("gone"),
    UpstreamNote("a note"),
]


class SessionMachine(RuleBasedStateMachine):
    """A phone call's session. Its player plays a frame every 20 ms; its engine is whatever the rules make of it."""

    sip = True

    def __init__(self) -> None:
        super().__init__()
        counter = itertools.count(1)
        self.new_id: Callable[[str], str] = lambda prefix: f"{prefix}_{next(counter)}"
        self.session = Session(
            parse_accept({"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}),
            session_id="sess_1",
            audio_format="audio/pcmu" if self.sip else "audio/pcm",
            new_id=self.new_id,
            sip=self.sip,
            max_duration_s=600.0,
            drain_s=DRAIN_S,
        )
        self.laws = SessionLaws(self.session)
        self.now = 100.0
        self.came_ms = 0.0
        self.played = 0
        self.asked: list[Respond] = []
        self.transcribes: list[Transcribe] = []
        self.calls: list[tuple[Respond, str]] = []
        self.closing_at = 0.0
        self.session.start(self.now, 1_700_000_000.0)
        self.attach(1)

    # The world.

    def drain(self) -> list[Output]:
        outputs = self.session.outputs()
        for output in outputs:
            self.laws.take(output)
            if isinstance(output, Respond):
                self.asked.append(output)
            elif isinstance(output, Transcribe):
                self.transcribes.append(output)
            elif isinstance(output, HearAudio):
                self.came_ms += FRAME_MS
        self.laws.settle()
        self.laws.speaker, self.laws.brings_context = None, False
        return outputs

    def attach(self, sender: int) -> None:
        self.laws.clients.add(sender)
        self.session.attach(sender, audio=sender % 2 == 0)
        self.drain()
        assert self.laws.closed or sender in self.laws.greeted

    def send(self, frame: Any, sender: int, event_id: str | None) -> list[dict[str, Any]]:
        """Send a frame; return the errors that it got, which are for the sender alone."""
        self.session.receive_client_event(frame, sender=sender, now=self.now)
        told = [output for output in self.drain() if getattr(output, "to", None) is not None]
        assert all(output.to == sender for output in told)
        errors = [output.event["error"] for output in told]
        assert all(error["event_id"] == event_id for error in errors)
        assert all(error["message"] for error in errors)
        return errors

    def engine(self, event: EngineEvent, *, stale: bool = False) -> None:
        self.session.receive_engine_event(event, self.now)
        outputs = self.drain()
        assert not (stale and outputs), f"{event} came too late, and made {outputs}"

    def fire(self) -> None:
        """The driver's timer."""
        for _ in range(2000):
            deadline = self.session.next_timer()
            if deadline is None or deadline > self.now:
                return
            self.session.handle_timer(self.now)
            self.drain()
        raise AssertionError("a timer that is always due")

    def play(self) -> None:
        """The sender's next frame, padded if it is the last; then it says that it has no more."""
        queued = bool(self.laws.queue)
        if self.laws.play(160):
            self.played += 160
        self.session.playout_progress(self.played, self.now)
        if queued and not self.laws.queue:
            self.session.playout_drained(self.played, self.now)
        self.drain()

    def hear_frame(self) -> None:
        self.session.receive_audio(b"\xff" * 160, self.now)
        self.came_ms += FRAME_MS

    def listen(self, probability: float) -> None:
        """The engine's ear catches up."""
        while self.laws.ear_ms < self.came_ms:
            self.laws.ear_ms += FRAME_MS
            self.engine(VoiceActivity(probability, self.laws.ear_ms), stale=self.laws.closing)

    @property
    def senders(self) -> st.SearchStrategy[int]:
        return st.sampled_from(sorted(self.laws.clients) or [1])

    @property
    def known_ids(self) -> list[str]:
        return sorted(self.laws.item_ids)[-8:]

    # Clients.

    @rule(sender=st.integers(1, 4))
    def client_comes_or_goes(self, sender: int) -> None:
        if sender in self.laws.clients:
            self.laws.clients.discard(sender)
            self.laws.greeted.discard(sender)
            self.session.detach(sender)
            self.drain()
        else:
            self.attach(sender)

    @rule(data=st.data(), session=st.sampled_from(CONFIGS), event_id=st.sampled_from([None, "e2"]))
    def client_updates(self, data: st.DataObject, session: dict[str, Any], event_id: str | None) -> None:
        frame = {"type": "session.update", "session": {"type": "realtime", **session}, "event_id": event_id}
        errors = self.send(frame, data.draw(self.senders), event_id)
        assert [error["code"] for error in errors] in ([], ["cannot_update_voice"])

    @rule(data=st.data(), event_id=st.sampled_from([None, "e3"]))
    def client_asks_for_a_response(self, data: st.DataObject, event_id: str | None) -> None:
        params = data.draw(response_params(self.known_ids))
        frame = {"type": "response.create", "response": params, "event_id": event_id}
        self.laws.brings_context = params is not None and "input" in params
        before = len(self.laws.responses)
        errors = self.send(frame, data.draw(self.senders), event_id)
        if not self.laws.closed:
            assert len(self.laws.responses) - before == 1 - len(errors)

    @precondition(lambda self: self.laws.responses)
    @rule(data=st.data(), names_it=st.booleans())
    def client_cancels(self, data: st.DataObject, names_it: bool) -> None:
        event: dict[str, Any] = {"type": "response.cancel", "event_id": "e4"}
        live = {told.created["id"] for told in self.laws.live}
        response_id = data.draw(st.sampled_from([*self.laws.responses, "nobody"])) if names_it else None
        frame = event | ({"response_id": response_id} if response_id else {})
        # Without an id, the conversation's response is meant (row E16).
        is_there = response_id in live if response_id else any(t.in_conversation for t in self.laws.live)
        errors = self.send(frame, data.draw(self.senders), "e4")
        if not self.laws.closed:
            assert [error["code"] for error in errors] == ([] if is_there else ["response_cancel_not_active"])
            assert len(self.laws.live) == len(live) - is_there

    @rule(data=st.data())
    def client_adds_an_item(self, data: st.DataObject) -> None:
        frame = orjson.dumps(data.draw(item_to_create(self.known_ids))).decode()
        before = len(self.laws.order)
        errors = self.send(frame, data.draw(self.senders), None)
        assert self.laws.closed or len(self.laws.order) == before + 1 - len(errors)

    @precondition(lambda self: self.laws.item_ids)
    @rule(data=st.data())
    def client_names_an_item(self, data: st.DataObject) -> None:
        frame = data.draw(item_event(self.known_ids))
        is_there = frame["item_id"] in self.laws.order
        errors = self.send(frame, data.draw(self.senders), None)
        assert self.laws.closed or is_there or errors[0]["code"].endswith("_invalid_item_id")

    @rule(data=st.data(), kind=st.sampled_from(["input_audio_buffer.commit", "input_audio_buffer.clear"]))
    def client_ends_a_turn(self, data: st.DataObject, kind: str) -> None:
        self.send({"type": kind}, data.draw(self.senders), None)

    @precondition(lambda self: self.laws.responses)
    @rule(data=st.data())
    def client_silences_the_agent(self, data: st.DataObject) -> None:
        errors = self.send({"type": "output_audio_buffer.clear"}, data.draw(self.senders), None)
        if not self.laws.closed:
            assert [error["param"] for error in errors] == ([] if self.sip else ["type"])
            assert not self.sip or self.laws.sounding is None

    @rule(data=st.data(), ms=st.sampled_from([1, 20, 130, 3000]))
    def client_appends(self, data: st.DataObject, ms: int) -> None:
        source = self.session.config.audio.input.format.type
        audio = base64.b64encode(b"\xff" * ms * bytes_per_ms(source)).decode()
        errors = self.send(
            {"type": "input_audio_buffer.append", "audio": audio}, data.draw(self.senders), None
        )
        assert self.laws.closed or len(errors) == self.sip

    @rule(data=st.data(), wrong=wrong_frames())
    def client_errs(self, data: st.DataObject, wrong: tuple[Any, str | None]) -> None:
        """Row S21: one error, for the sender alone; nothing else happens."""
        frame, event_id = wrong
        config, order, responses = self.session.config, list(self.laws.order), len(self.laws.responses)
        errors = self.send(frame, data.draw(self.senders), event_id)
        assert len(errors) == (0 if self.laws.closed else 1)
        assert (self.session.config, self.laws.order, len(self.laws.responses)) == (config, order, responses)

    # The caller, and time.

    @rule(what=st.sampled_from("0123456789*#ABCD") | st.sampled_from(UPSTREAM))
    def a_key_is_pressed_or_nothing(self, what: str | EngineEvent) -> None:
        """Events of an upstream are a relay's affair."""
        if not isinstance(what, str):
            self.engine(what, stale=True)
            return
        self.session.receive_digit(what, self.now, 1_700_000_000.5)
        outputs = self.drain()
        assert len(outputs) == (not self.laws.closed)

    @rule(
        ms=st.sampled_from([20, 100, 300, 700, 2500]),
        probability=st.sampled_from([0.0, 0.4, 0.9]),
        ear=st.booleans(),
        plays=st.booleans(),
    )
    def time_passes(self, ms: int, probability: float, ear: bool, plays: bool) -> None:
        """Sound comes and goes; the engine's ear, or the sender, may stand still meanwhile."""
        self.wait(ms, probability, ear=ear, plays=plays)

    @rule(
        ms=st.sampled_from([100, 600]),
        silence_ms=st.sampled_from([0, 200, 600, 2600]),
        text=st.sampled_from(["Yes, please.", "", "I want to"]),
    )
    def caller_says_something(self, ms: int, silence_ms: int, text: str) -> None:
        self.wait(ms, 0.9)
        self.wait(silence_ms, 0.0)
        if self.transcribes and silence_ms:
            command = self.transcribes[-1]
            self.engine(Transcribed(command.item_id, command.revision, text, 1.0))

    def wait(self, ms: int, probability: float, *, ear: bool = True, plays: bool = True) -> None:
        for _ in range(ms // FRAME_MS):
            self.now += FRAME_S
            if plays and self.sip:
                self.play()
            if not self.laws.closed:
                self.hear_frame()
            if ear:
                self.listen(probability)
            self.fire()

    @rule(seconds=st.sampled_from([0.5, 3.0, 12.0]))
    def nothing_comes(self, seconds: float) -> None:
        """No frame, no word: only timers."""
        until = self.now + seconds
        while (deadline := self.session.next_timer()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.fire()
        self.now = until

    # The engine.

    def some_command(self, data: st.DataObject) -> tuple[Respond, bool]:
        """Return a command to answer, and whether it is too late for that."""
        live = [told.asked for told in self.laws.live if told.asked]
        command = data.draw(st.sampled_from(live * 3 + self.asked[-6:]))
        return command, self.laws.responses[command.response_id].done

    @precondition(lambda self: self.asked)
    @rule(
        data=st.data(),
        text=st.sampled_from(["Some words. ", "More", ""]),
        ms=st.sampled_from([0, 5, 500, 3000]),
    )
    def engine_speaks(self, data: st.DataObject, text: str, ms: int) -> None:
        command, stale = self.some_command(data)
        self.laws.speaker = command.response_id
        audio = b"\x10" * bytes_per_ms(self.session.audio_format) * ms
        self.engine(ResponseSpeech(command.response_id, command.generation, text, audio), stale=stale)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def engine_writes(self, data: st.DataObject) -> None:
        command, stale = self.some_command(data)
        if not command.audio or stale:
            self.engine(ResponseText(command.response_id, command.generation, "Words. "), stale=stale)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def engine_begins_a_call(self, data: st.DataObject) -> None:
        command, stale = self.some_command(data)
        call_id = self.new_id("call")
        self.calls.append((command, call_id))
        self.engine(
            FunctionCallStarted(command.response_id, command.generation, call_id, "look_up"), stale=stale
        )

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), piece=st.sampled_from(['{"a":', "1}", "{}", "", "x", " "]))
    def engine_adds_arguments(self, data: st.DataObject, piece: str) -> None:
        command, call_id = data.draw(st.sampled_from(self.calls[-4:]))
        open_calls = {made.item.get("call_id") for made in self.laws.making.values()}
        event = FunctionCallArguments(command.response_id, command.generation, call_id, piece)
        self.engine(event, stale=call_id not in open_calls)

    @initialize(greets=st.booleans(), attached=st.sampled_from([1, 2]))
    def the_agent_greets(self, greets: bool, attached: int) -> None:
        for sender in range(2, attached + 1):
            self.attach(sender)
        if greets:
            self.send({"type": "response.create"}, 1, None)
            self.answer(self.asked[-1], "Hello. ", 1000)

    @precondition(lambda self: any(told.asked for told in self.laws.live))
    @rule(
        data=st.data(),
        ms=st.sampled_from([20, 1500]),
        calls=st.sampled_from([None, '{"a":1}', '{"a":', ""]),
        end=st.sampled_from([None, None, *ENDS]),
    )
    def engine_answers(
        self, data: st.DataObject, ms: int, calls: str | None, end: dict[str, Any] | None
    ) -> None:
        """What engines mostly do: words, perhaps a call, the end."""
        command = data.draw(st.sampled_from([told.asked for told in self.laws.live if told.asked]))
        assert command is not None
        self.answer(command, "Some words. ", ms)
        which = (command.response_id, command.generation)
        if calls is not None:
            call_id = self.new_id("call")
            self.calls.append((command, call_id))
            self.engine(FunctionCallStarted(*which, call_id, "look_up"))
            self.engine(FunctionCallArguments(*which, call_id, calls))
        if end is not None:
            self.engine(ResponseFinished(*which, **end))

    def answer(self, command: Respond, text: str, ms: int) -> None:
        self.laws.speaker = command.response_id
        if command.audio:
            audio = b"\x10" * bytes_per_ms(self.session.audio_format) * ms
            self.engine(ResponseSpeech(command.response_id, command.generation, text, audio))
        else:
            self.engine(ResponseText(command.response_id, command.generation, text))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), end=st.sampled_from([{}, *ENDS]))
    def engine_finishes(self, data: st.DataObject, end: dict[str, Any]) -> None:
        command, stale = self.some_command(data)
        self.engine(ResponseFinished(command.response_id, command.generation, **end), stale=stale)
        assert self.laws.responses[command.response_id].done

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), what=st.integers(0, 4), off=st.sampled_from([-1, 1]))
    def engine_errs(self, data: st.DataObject, what: int, off: int) -> None:
        """Another generation, or nobody's response: nothing comes of it."""
        command, _ = self.some_command(data)
        for response_id, generation in [
            (command.response_id, command.generation + off),
            ("resp_nobody", command.generation),
        ]:
            event: EngineEvent = [
                ResponseSpeech(response_id, generation, "Late. ", b"\x10" * 960),
                ResponseText(response_id, generation, "Late. "),
                FunctionCallStarted(response_id, generation, "call_late", "look_up"),
                FunctionCallArguments(response_id, generation, "call_late", "{}"),
                ResponseFinished(response_id, generation),
            ][what]
            self.engine(event, stale=True)

    @precondition(lambda self: self.transcribes)
    @rule(
        data=st.data(),
        text=st.sampled_from(["", "Yes.", "I want to"]),
        off=st.sampled_from([0, 0, 0, 0, -1, 1]),
        fails=st.booleans(),
    )
    def engine_transcribes(self, data: st.DataObject, text: str, off: int, fails: bool) -> None:
        command = data.draw(st.sampled_from(self.transcribes[-5:]))
        item_id, revision = command.item_id, command.revision + off
        speaking = self.laws.speech is not None and self.laws.speech[0] == item_id
        stale = revision != self.laws.revisions[item_id] or not (speaking or item_id in self.laws.order)
        if fails:
            self.engine(TranscriptionFailed(item_id, revision, "no_words", "No words."), stale=stale)
        else:
            self.engine(Transcribed(item_id, revision, text, 1.0), stale=stale)

    @precondition(lambda self: len(self.laws.event_ids) > 60)
    @rule()
    def engine_dies(self) -> None:
        self.engine(EngineFailed("worker 3 is gone"), stale=self.laws.closed)
        assert not self.laws.live

    # The end.

    @rule()
    def close(self) -> None:
        if not self.laws.closing:
            self.laws.closing, self.closing_at = True, self.now
        self.session.close("hangup", self.now)
        self.drain()

    @invariant()
    def a_timer_is_never_in_the_past_for_long(self) -> None:
        deadline = self.session.next_timer()
        assert deadline is None or deadline >= self.now - FRAME_S - 0.001

    @invariant()
    def the_end_comes_in_time(self) -> None:
        """A second, however much was under way (row S17)."""
        if self.laws.closing and not self.laws.closed:
            assert self.now <= self.closing_at + DRAIN_S + FRAME_S + 0.001

    @invariant()
    def what_is_over_wants_nothing(self) -> None:
        assert not self.laws.closed or self.session.next_timer() is None

    def teardown(self) -> None:
        self.close()
        self.nothing_comes(DRAIN_S)
        assert self.laws.closed


class PlainSessionMachine(SessionMachine):
    """Without a call: a client sends the sound, and nobody tells what was played."""

    sip = False

    def hear_frame(self) -> None:
        source = self.session.config.audio.input.format.type
        audio = base64.b64encode(b"\xff" * FRAME_MS * bytes_per_ms(source)).decode()
        event = {"type": "input_audio_buffer.append", "audio": audio}
        self.session.receive_client_event(event, sender=1, now=self.now)
        wrong = [one for one in self.session.outputs() if not isinstance(one, HearAudio | SessionNote)]
        assert not wrong
        self.came_ms = self.session._listening.buffer.end_ms


PROFILE = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_what_a_calls_clients_are_told_is_whole_whatever_happens() -> None:
    run_state_machine_as_test(SessionMachine, settings=PROFILE)


def test_what_a_session_without_a_call_tells_is_whole_whatever_happens() -> None:
    run_state_machine_as_test(PlainSessionMachine, settings=PROFILE)
