"""What holds whatever clients, caller and engine do, in any order (rows O03, O04, O12, V14)."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from offhook.realtime.engine import (
    FunctionCallArguments,
    FunctionCallStarted,
    Respond,
    ResponseFinished,
    ResponseSpeech,
    Transcribe,
    Transcribed,
    TranscriptionFailed,
    VoiceActivity,
)
from offhook.realtime.session import (
    ClearPlayout,
    HearAudio,
    PlayAudio,
    RetrievedItem,
    ServerEvent,
    Session,
    SessionClosed,
)
from offhook.realtime.session_config import parse_accept
from offhook.realtime.sideband_audio import bytes_per_ms
from testbed.by_hand import check

TURN_DETECTION: list[Any] = [
    None,
    {"type": "server_vad"},
    {"type": "server_vad", "interrupt_response": False, "silence_duration_ms": 200},
    {"type": "server_vad", "create_response": False, "idle_timeout_ms": 5000},
    {"type": "semantic_vad", "eagerness": "high"},
]
CLIENT_EVENTS: list[dict[str, Any]] = [
    {"type": "response.create"},
    {"type": "response.create", "response": {"conversation": "none"}},
    {"type": "response.create", "response": {"output_modalities": ["text"]}},
    {"type": "response.cancel"},
    {"type": "output_audio_buffer.clear"},
    {"type": "input_audio_buffer.clear"},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.append", "audio": "AAAA"},
    {
        "type": "conversation.item.create",
        "item": {"type": "function_call_output", "call_id": "c", "output": "o"},
    },
    {"type": "nonsense"},
    *(
        {
            "type": "session.update",
            "session": {"type": "realtime", "audio": {"input": {"turn_detection": turn}}},
        }
        for turn in TURN_DETECTION
    ),
    *(
        {
            "type": "session.update",
            "session": {"type": "realtime", "audio": {side: {"format": {"type": name}}}},
        }
        for side in ("input", "output")
        for name in ("audio/pcm", "audio/pcmu", "audio/pcma")
    ),
]


class SessionMachine(RuleBasedStateMachine):
    sip = True

    def __init__(self) -> None:
        super().__init__()
        counter = itertools.count(1)
        self.session = Session(
            parse_accept({"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}),
            session_id="sess_1",
            audio_format="audio/pcmu" if self.sip else "audio/pcm",
            new_id=lambda prefix: f"{prefix}_{next(counter)}",
            sip=self.sip,
            max_duration_s=600.0,
        )
        self.now = 100.0
        self.heard_ms = 0.0
        self.queued = self.played = 0
        self.asked: list[Respond] = []
        self.transcribes: list[Transcribe] = []
        self.event_ids: set[str] = set()
        self.created: set[str] = set()
        self.limits_are_next = False
        self.done: set[str] = set()
        self.added: set[str] = set()
        self.items_done: set[str] = set()
        self.parts: dict[tuple[str, int], str] = {}
        self.sounding: str | None = None
        self.heard: dict[str, int] = {}
        self.closed = self.closing = False
        self.closing_at = self.closed_at = 0.0
        self.session.start(self.now, 1_700_000_000.0)
        self.session.attach(1)
        self.drain()

    # The world.

    def drain(self) -> None:
        for output in self.session.outputs():
            assert not self.closed, output
            match output:
                case ServerEvent():
                    self.judge(output.event)
                case RetrievedItem():
                    while not output.encode_next():
                        pass
                    self.judge(orjson.loads(output.frame()))
                case Respond():
                    assert output.response_id in self.created - self.done
                    self.asked.append(output)
                case Transcribe():
                    self.transcribes.append(output)
                case PlayAudio():
                    assert not self.closing
                    self.queued += len(output.audio)
                case ClearPlayout():
                    self.queued = 0
                case SessionClosed():
                    self.closed = True
                    self.closed_at = self.now

    def judge(self, event: dict[str, Any]) -> None:
        check(event)
        assert event["event_id"] not in self.event_ids
        self.event_ids.add(event["event_id"])
        kind = event["type"]
        # Its limits come with each response, next of all (row O13).
        assert (kind == "rate_limits.updated") == self.limits_are_next
        self.limits_are_next = kind == "response.created"
        if kind == "response.created":
            assert event["response"]["id"] not in self.created
            self.created.add(event["response"]["id"])
        elif kind == "response.done":
            self.judge_done(event["response"])
        elif kind == "conversation.item.added":
            assert event["item"]["id"] not in self.added
            self.added.add(event["item"]["id"])
        elif kind == "conversation.item.done":
            assert event["item"]["id"] in self.added - self.items_done
            self.items_done.add(event["item"]["id"])
        elif kind.startswith("response."):
            assert event["response_id"] in self.created - self.done
            self.judge_part(event)
        elif kind.startswith("output_audio_buffer."):
            self.judge_sound(kind, event["response_id"])
        elif kind == "conversation.item.truncated":
            # Nobody heard more than was sent.
            assert event["audio_end_ms"] * 8 <= self.played

    def judge_part(self, event: dict[str, Any]) -> None:
        key = (event["response_id"], event["output_index"])
        kind = event["type"]
        if kind == "response.output_item.added":
            assert key not in self.parts
            self.parts[key] = "open"
        elif kind == "response.output_item.done":
            assert self.parts[key] == "open"
            self.parts[key] = "done"
            assert event["item"]["status"] in ("completed", "incomplete")
        else:
            assert self.parts[key] == "open"

    def judge_done(self, response: dict[str, Any]) -> None:
        assert response["id"] in self.created - self.done
        self.done.add(response["id"])
        assert all(state == "done" for key, state in self.parts.items() if key[0] == response["id"])
        assert len(response["output"]) == sum(key[0] == response["id"] for key in self.parts)
        if response["status"] != "completed":
            assert response["status_details"]["type"] == response["status"]

    def judge_sound(self, kind: str, response_id: str) -> None:
        if kind.endswith("started"):
            assert self.sounding is None
            self.sounding = response_id
        else:
            assert self.sounding == response_id
            self.sounding = None
        if kind.endswith("stopped"):
            assert response_id in self.done

    # What may happen.

    @rule(event=st.sampled_from(CLIENT_EVENTS))
    def client(self, event: dict[str, Any]) -> None:
        if not self.closed:
            self.session.receive_client_event(orjson.dumps(event).decode(), sender=1, now=self.now)
            self.drain()

    @rule(data=st.data(), verb=st.sampled_from(["retrieve", "delete", "truncate"]))
    def client_names_an_item(self, data: st.DataObject, verb: str) -> None:
        items = [item.id for item in self.session.conversation]
        if items and not self.closed:
            event: dict[str, Any] = {
                "type": f"conversation.item.{verb}",
                "item_id": data.draw(st.sampled_from(items)),
            }
            if verb == "truncate":
                event |= {"content_index": 0, "audio_end_ms": 0}
            self.session.receive_client_event(event, sender=1, now=self.now)
            self.drain()

    @rule(ms=st.sampled_from([20, 100, 300, 700, 2500]), probability=st.sampled_from([0.0, 0.4, 0.9]))
    def time_passes(self, ms: int, probability: float) -> None:
        for _ in range(ms // 20):
            self.now += 0.02
            self.heard_ms += 20
            sent = min(160, self.queued)
            self.queued -= sent
            self.played += sent
            self.session.playout_progress(self.played, self.now)
            if sent and not self.queued:
                self.session.playout_drained(self.played, self.now)
            self.hear()
            self.session.receive_engine_event(VoiceActivity(probability, self.heard_ms), self.now)
            deadline = self.session.next_timer()
            if deadline is not None and deadline <= self.now:
                self.session.handle_timer(self.now)
            self.drain()

    def hear(self) -> None:
        self.session.receive_audio(b"\xff" * 160, self.now)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), ms=st.sampled_from([0, 20, 500, 3000]))
    def engine_speaks(self, data: st.DataObject, ms: int) -> None:
        command = data.draw(st.sampled_from(self.asked))
        self.engine(ResponseSpeech(command.response_id, command.generation, "Some words.", b"\x10" * 8 * ms))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), arguments=st.sampled_from(["{}", '{"a":', ""]))
    def engine_calls(self, data: st.DataObject, arguments: str) -> None:
        command = data.draw(st.sampled_from(self.asked))
        call_id = f"call_{len(self.event_ids)}"
        self.engine(FunctionCallStarted(command.response_id, command.generation, call_id, "f"))
        self.engine(FunctionCallArguments(command.response_id, command.generation, call_id, arguments))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), status=st.sampled_from(["completed", "failed", "incomplete"]))
    def engine_finishes(self, data: st.DataObject, status: Any) -> None:
        command = data.draw(st.sampled_from(self.asked))
        self.engine(ResponseFinished(command.response_id, command.generation, status))

    @precondition(lambda self: self.transcribes)
    @rule(data=st.data(), text=st.sampled_from(["", "Yes.", "I want to"]), fails=st.booleans())
    def engine_transcribes(self, data: st.DataObject, text: str, fails: bool) -> None:
        command = data.draw(st.sampled_from(self.transcribes))
        if fails:
            self.engine(TranscriptionFailed(command.item_id, command.revision, "code", "message"))
        else:
            self.engine(Transcribed(command.item_id, command.revision, text, 1.0))

    def engine(self, event: Any) -> None:
        self.session.receive_engine_event(event, self.now)
        self.drain()

    @precondition(lambda self: len(self.event_ids) > 40)
    @rule()
    def close(self) -> None:
        if not self.closing:
            self.closing, self.closing_at = True, self.now
        self.session.close("hangup", self.now)
        self.queued = 0
        self.drain()

    # What always holds.

    @invariant()
    def a_closed_session_owes_nothing(self) -> None:
        if self.closed:
            assert self.created == self.done

    @invariant()
    def a_timer_is_never_in_the_past_for_long(self) -> None:
        deadline = self.session.next_timer()
        assert deadline is None or deadline >= self.now - 0.021

    def teardown(self) -> None:
        self.close()
        while not self.closed:
            deadline = self.session.next_timer()
            assert deadline is not None
            self.now = deadline
            self.session.handle_timer(self.now)
            self.drain()
        # A second, however much was under way (row S17).
        assert self.closed_at <= self.closing_at + 1.021
        assert self.created == self.done
        assert self.added == self.items_done
        assert self.session.next_timer() is None


class PlainSessionMachine(SessionMachine):
    """Without a call: the client sends the sound, and nobody tells what was played."""

    sip = False

    def judge(self, event: dict[str, Any]) -> None:
        assert not event["type"].startswith("output_audio_buffer.")
        super().judge(event)

    def hear(self) -> None:
        source = self.session.config.audio.input.format.type
        audio = base64.b64encode(b"\xff" * 20 * bytes_per_ms(source)).decode()
        self.session.receive_client_event(
            {"type": "input_audio_buffer.append", "audio": audio}, sender=1, now=self.now
        )
        assert self.closing or not self.session.behind
        assert not [output for output in self.session.outputs() if self.is_wrong(output)]

    def is_wrong(self, output: Any) -> bool:
        """An append makes frames for the engine and nothing else; nothing is ever played here."""
        if not isinstance(output, HearAudio):
            return True
        return self.closing or len(output.audio) != 20 * bytes_per_ms(self.session.audio_format)


TestSession = SessionMachine.TestCase
TestSession.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPlainSession = PlainSessionMachine.TestCase
TestPlainSession.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
