"""
What holds whatever clients, caller, engine and clock do, in any order (rows O01 to O12, S13 to S17, S21, V01, V14).

The machine does; `testbed.session_laws` judges. Both kinds of session: a phone call's, and a client's own.
"""

from __future__ import annotations

import base64
from typing import Any

import orjson
from hypothesis import HealthCheck, Phase, settings
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
    Transcribed,
    TranscriptionFailed,
    UpstreamEvent,
    UpstreamLost,
    UpstreamNote,
    UpstreamOpened,
)
from offhook.realtime.sideband_audio import bytes_per_ms
from testbed.client_frames import CONFIGS, item_event, item_to_create, response_params, wrong_frames
from testbed.session_world import DRAIN_S, SessionWorld

LATE_S = 0.021
"A driver's timer may come with the next frame."
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
    """A phone call's session."""

    sip = True

    def __init__(self) -> None:
        super().__init__()
        self.world = SessionWorld(sip=self.sip)
        self.laws = self.world.laws

    @property
    def senders(self) -> st.SearchStrategy[int]:
        return st.sampled_from(sorted(self.laws.clients) or [1])

    @property
    def known_ids(self) -> list[str]:
        return list(self.laws.item_ids)[-8:]

    # Clients.

    @rule(sender=st.integers(1, 4))
    def client_comes_or_goes(self, sender: int) -> None:
        if sender in self.laws.clients:
            self.laws.clients.discard(sender)
            self.laws.greeted.discard(sender)
            self.world.session.detach(sender)
            self.world.drain()
        else:
            self.world.attach(sender)

    @rule(data=st.data(), session=st.sampled_from(CONFIGS), event_id=st.sampled_from([None, "e2"]))
    def client_updates(self, data: st.DataObject, session: dict[str, Any], event_id: str | None) -> None:
        frame = {"type": "session.update", "session": {"type": "realtime", **session}, "event_id": event_id}
        errors = self.world.send(frame, data.draw(self.senders), event_id)
        assert [error["code"] for error in errors] in ([], ["cannot_update_voice"])

    @rule(data=st.data(), event_id=st.sampled_from([None, "e3"]))
    def client_asks_for_a_response(self, data: st.DataObject, event_id: str | None) -> None:
        params = data.draw(response_params(self.known_ids))
        frame = {"type": "response.create", "response": params, "event_id": event_id}
        self.laws.brings_context = params is not None and "input" in params
        before = len(self.laws.responses)
        errors = self.world.send(frame, data.draw(self.senders), event_id)
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
        errors = self.world.send(frame, data.draw(self.senders), "e4")
        if not self.laws.closed:
            assert [error["code"] for error in errors] == ([] if is_there else ["response_cancel_not_active"])
            assert len(self.laws.live) == len(live) - is_there

    @rule(data=st.data())
    def client_adds_an_item(self, data: st.DataObject) -> None:
        event = data.draw(item_to_create(self.known_ids))
        before, place = list(self.laws.order), event.get("previous_item_id")
        errors = self.world.send(orjson.dumps(event).decode(), data.draw(self.senders), None)
        if self.laws.closed or errors:
            assert self.laws.order == before
            return
        index = len(before) if place is None else 0 if place == "root" else before.index(place) + 1
        assert self.laws.order[:index] + self.laws.order[index + 1 :] == before

    @precondition(lambda self: self.laws.item_ids)
    @rule(data=st.data())
    def client_names_an_item(self, data: st.DataObject) -> None:
        frame = data.draw(item_event(self.known_ids))
        is_there = frame["item_id"] in self.laws.order
        errors = self.world.send(frame, data.draw(self.senders), None)
        assert self.laws.closed or is_there or errors[0]["code"].endswith("_invalid_item_id")

    @rule(data=st.data(), kind=st.sampled_from(["input_audio_buffer.commit", "input_audio_buffer.clear"]))
    def client_ends_a_turn(self, data: st.DataObject, kind: str) -> None:
        self.world.send({"type": kind}, data.draw(self.senders), None)

    @precondition(lambda self: self.laws.sounding)
    @rule(data=st.data(), audio_end_ms=st.sampled_from([0, 200]))
    def client_truncates_what_sounds(self, data: st.DataObject, audio_end_ms: int) -> None:
        response = self.laws.responses[self.laws.sounding or ""]
        for made in response.outputs:
            where = {"item_id": made.item["id"], "content_index": 0, "audio_end_ms": audio_end_ms}
            self.world.send({"type": "conversation.item.truncate", **where}, data.draw(self.senders), None)

    @precondition(lambda self: self.laws.responses)
    @rule(data=st.data())
    def client_silences_the_agent(self, data: st.DataObject) -> None:
        errors = self.world.send({"type": "output_audio_buffer.clear"}, data.draw(self.senders), None)
        if not self.laws.closed:
            assert [error["param"] for error in errors] == ([] if self.sip else ["type"])
            assert not self.sip or self.laws.sounding is None

    @rule(data=st.data(), ms=st.sampled_from([1, 20, 130, 3000]))
    def client_appends(self, data: st.DataObject, ms: int) -> None:
        source = self.world.session.config.audio.input.format.type
        audio = base64.b64encode(b"\xff" * ms * bytes_per_ms(source)).decode()
        errors = self.world.send(
            {"type": "input_audio_buffer.append", "audio": audio}, data.draw(self.senders), None
        )
        assert self.laws.closed or len(errors) == self.sip

    @rule(data=st.data(), wrong=wrong_frames())
    def client_errs(self, data: st.DataObject, wrong: tuple[Any, str | None]) -> None:
        """Row S21: one error, for the sender alone; nothing else happens."""
        frame, event_id = wrong
        config, order, responses = self.world.session.config, list(self.laws.order), len(self.laws.responses)
        errors = self.world.send(frame, data.draw(self.senders), event_id)
        assert len(errors) == (0 if self.laws.closed else 1)
        assert (self.world.session.config, self.laws.order, len(self.laws.responses)) == (
            config,
            order,
            responses,
        )

    # The caller, and time.

    @rule(what=st.sampled_from("0123456789*#ABCD") | st.sampled_from(UPSTREAM))
    def a_key_is_pressed_or_nothing(self, what: str | EngineEvent) -> None:
        """Events of an upstream are a relay's affair."""
        if not isinstance(what, str):
            self.world.engine(what, stale=True)
            return
        self.world.session.receive_digit(what, self.world.now, 1_700_000_000.5)
        outputs = self.world.drain()
        assert len(outputs) == (not self.laws.closed)

    @rule(
        ms=st.sampled_from([20, 100, 300, 700, 2500]),
        probability=st.sampled_from([0.0, 0.4, 0.9]),
        ear=st.booleans(),
        plays=st.booleans(),
    )
    def time_passes(self, ms: int, probability: float, ear: bool, plays: bool) -> None:
        """Sound comes and goes; the engine's ear, or the sender, may stand still meanwhile."""
        self.world.wait(ms, probability, ear=ear, plays=plays)

    @rule(
        ms=st.sampled_from([100, 600]),
        silence_ms=st.sampled_from([0, 200, 600, 2600]),
        text=st.sampled_from(["Yes, please.", "", "I want to"]),
    )
    def caller_says_something(self, ms: int, silence_ms: int, text: str) -> None:
        self.world.wait(ms, 0.9)
        self.world.wait(silence_ms, 0.0)
        if self.world.transcribes and silence_ms:
            command = self.world.transcribes[-1]
            self.world.engine(Transcribed(command.item_id, command.revision, text, 1.0))

    @rule(seconds=st.sampled_from([0.5, 3.0, 12.0]))
    def nothing_comes(self, seconds: float) -> None:
        """No frame, no word: only timers."""
        self.world.let_pass(seconds)

    # The engine.

    def some_command(self, data: st.DataObject) -> tuple[Respond, bool]:
        """Return a command to answer, and whether it is too late for that."""
        live = [told.asked for told in self.laws.live if told.asked]
        command = data.draw(st.sampled_from(live * 3 + self.world.asked[-6:]))
        return command, self.laws.responses[command.response_id].done

    @precondition(lambda self: self.world.asked)
    @rule(
        data=st.data(),
        text=st.sampled_from(["Some words. ", "More", ""]),
        ms=st.sampled_from([0, 5, 500, 3000]),
    )
    def engine_speaks(self, data: st.DataObject, text: str, ms: int) -> None:
        command, stale = self.some_command(data)
        self.laws.speaker = command.response_id
        audio = b"\x10" * bytes_per_ms(self.world.session.audio_format) * ms
        self.world.engine(ResponseSpeech(command.response_id, command.generation, text, audio), stale=stale)

    @precondition(lambda self: self.world.asked)
    @rule(data=st.data())
    def engine_writes(self, data: st.DataObject) -> None:
        command, stale = self.some_command(data)
        if not command.audio or stale:
            self.world.engine(ResponseText(command.response_id, command.generation, "Words. "), stale=stale)

    @precondition(lambda self: self.world.asked)
    @rule(data=st.data())
    def engine_begins_a_call(self, data: st.DataObject) -> None:
        command, stale = self.some_command(data)
        call_id = self.world.new_id("call")
        self.world.calls.append((command, call_id))
        self.world.engine(
            FunctionCallStarted(command.response_id, command.generation, call_id, "look_up"), stale=stale
        )

    @precondition(lambda self: self.world.calls)
    @rule(data=st.data(), piece=st.sampled_from(['{"a":', "1}", "{}", "", "x", " "]))
    def engine_adds_arguments(self, data: st.DataObject, piece: str) -> None:
        command, call_id = data.draw(st.sampled_from(self.world.calls[-4:]))
        open_calls = {made.item.get("call_id") for made in self.laws.making.values()}
        event = FunctionCallArguments(command.response_id, command.generation, call_id, piece)
        self.world.engine(event, stale=call_id not in open_calls)

    @initialize(
        greets=st.booleans(),
        attached=st.sampled_from([1, 2]),
        modality=st.sampled_from(["audio", "audio", "text"]),
    )
    def the_agent_greets(self, greets: bool, attached: int, modality: str) -> None:
        session = {"type": "realtime", "output_modalities": [modality]}
        self.world.send({"type": "session.update", "session": session}, 1, None)
        for sender in range(2, attached + 1):
            self.world.attach(sender)
        if greets:
            self.world.send({"type": "response.create"}, 1, None)
            self.world.answer(self.world.asked[-1], "Hello. ", 1000)

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
        self.world.answer(command, "Some words. ", ms)
        which = (command.response_id, command.generation)
        if calls is not None:
            call_id = self.world.new_id("call")
            self.world.calls.append((command, call_id))
            self.world.engine(FunctionCallStarted(*which, call_id, "look_up"))
            self.world.engine(FunctionCallArguments(*which, call_id, calls))
        if end is not None:
            self.world.engine(ResponseFinished(*which, **end))

    @precondition(lambda self: self.world.asked)
    @rule(data=st.data(), end=st.sampled_from([{}, *ENDS]))
    def engine_finishes(self, data: st.DataObject, end: dict[str, Any]) -> None:
        command, stale = self.some_command(data)
        self.world.engine(ResponseFinished(command.response_id, command.generation, **end), stale=stale)
        assert self.laws.responses[command.response_id].done

    @precondition(lambda self: self.world.asked)
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
            self.world.engine(event, stale=True)

    @precondition(lambda self: self.world.transcribes)
    @rule(
        data=st.data(),
        text=st.sampled_from(["", "Yes.", "I want to"]),
        off=st.sampled_from([0, 0, 0, 0, -1, 1]),
        fails=st.booleans(),
    )
    def engine_transcribes(self, data: st.DataObject, text: str, off: int, fails: bool) -> None:
        command = data.draw(st.sampled_from(self.world.transcribes[-5:]))
        item_id, revision = command.item_id, command.revision + off
        speaking = self.laws.speech is not None and self.laws.speech[0] == item_id
        stale = revision != self.laws.revisions[item_id] or not (speaking or item_id in self.laws.order)
        if fails:
            self.world.engine(TranscriptionFailed(item_id, revision, "no_words", "No words."), stale=stale)
        else:
            self.world.engine(Transcribed(item_id, revision, text, 1.0), stale=stale)

    @precondition(lambda self: len(self.laws.event_ids) > 60 or self.laws.closed)
    @rule()
    def engine_dies(self) -> None:
        self.world.engine(EngineFailed("worker 3 is gone"), stale=self.laws.closed)
        assert not self.laws.live

    # The end.

    @rule()
    def close(self) -> None:
        self.world.close()

    @invariant()
    def a_timer_is_never_in_the_past_for_long(self) -> None:
        deadline = self.world.session.next_timer()
        assert deadline is None or deadline >= self.world.now - LATE_S

    @invariant()
    def the_end_comes_in_time(self) -> None:
        """A second, however much was under way (row S17)."""
        if self.laws.closing and not self.laws.closed:
            assert self.world.now <= self.world.closing_at + DRAIN_S + LATE_S

    @invariant()
    def what_is_over_wants_nothing(self) -> None:
        assert not self.laws.closed or self.world.session.next_timer() is None

    def teardown(self) -> None:
        self.world.close()
        self.world.let_pass(DRAIN_S)
        assert self.laws.closed


class PlainSessionMachine(SessionMachine):
    """Without a call: a client sends the sound, and nobody tells what was played."""

    sip = False


PROFILE = settings(
    max_examples=200,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_what_a_calls_clients_are_told_is_whole_whatever_happens() -> None:
    run_state_machine_as_test(SessionMachine, settings=PROFILE)


def test_what_a_session_without_a_call_tells_is_whole_whatever_happens() -> None:
    run_state_machine_as_test(PlainSessionMachine, settings=PROFILE)
