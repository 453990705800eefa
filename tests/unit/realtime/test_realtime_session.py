"""Client events and what they cause: rows E01 to E25 and S21, on the pure session with an engine played by the test."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from offhook.realtime.engine import (
    CancelResponse,
    ResponseSpeech,
    Transcribe,
    Transcribed,
)
from offhook.realtime.session import (
    HearAudio,
    PlayAudio,
    SessionClosed,
    SessionNote,
)
from testbed.by_hand import Desk, types

MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}


# Frames that are no events (row S21).


@pytest.mark.parametrize(
    ("frame", "code", "param", "event_id"),
    [
        ("{", "invalid_json", None, None),
        ("[]", "invalid_type", None, None),
        ("{}", "missing_required_parameter", "type", None),
        ('{"event_id":"e1"}', "missing_required_parameter", "type", "e1"),
        ('{"type":7,"event_id":"e1"}', "invalid_type", "type", "e1"),
        ('{"type":"response.make","event_id":"e1"}', "invalid_value", "type", "e1"),
        (b'{"type":"response.create"}', "invalid_value", None, None),
        (
            '{"type":"conversation.item.delete","event_id":"e1"}',
            "missing_required_parameter",
            "item_id",
            "e1",
        ),
        ('{"type":"response.cancel","event_id":"e1","now":1}', "unknown_parameter", "now", "e1"),
        (
            '{"type":"response.create","event_id":"e1","response":{"voice":"x"}}',
            "unknown_parameter",
            "response.voice",
            "e1",
        ),
        ('{"type":"session.update","event_id":"e1"}', "missing_required_parameter", "session", "e1"),
        (
            '{"type":"session.update","event_id":"e1","session":{}}',
            "missing_required_parameter",
            "session.type",
            "e1",
        ),
        ('{"type":"response.cancel","event_id":5}', "invalid_type", "event_id", None),
    ],
)
def test_a_bad_frame_is_answered_and_harms_nothing(frame: Any, code: str, param: Any, event_id: Any) -> None:
    desk = Desk()
    desk.session.receive_client_event(frame, sender=1, now=desk.now)
    (event,) = desk.drain()
    assert desk.outputs[0].to == 1
    error = event["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert (error["param"], error["event_id"]) == (param, event_id)
    assert desk.respond().items == []


# The end of a session.


def test_nothing_is_said_to_a_caller_who_is_gone() -> None:
    """Row S17: an answer that nobody can hear was not said."""
    desk = Desk()
    command = desk.respond()
    desk.session.close("hangup", desk.now)
    desk.drain()
    events = desk.say(command, "Hello?")
    assert types(events) == ["response.done"]
    assert events[0]["response"]["status"] == "cancelled"
    assert desk.commands(PlayAudio) == []


def test_a_call_that_no_client_follows_ends_at_once() -> None:
    """Row S17: what is under way has nobody to be finished for; the engine is told to stop."""
    desk = Desk()
    command = desk.respond()
    desk.session.detach(1)
    desk.session.close("hangup", desk.now)
    (done,) = desk.drain()
    assert (done["type"], done["response"]["status"]) == ("response.done", "cancelled")
    assert desk.commands(CancelResponse) == [CancelResponse(command.response_id)]
    assert desk.commands(SessionClosed) == [SessionClosed("hangup")]
    assert desk.session.next_timer() is None


def test_the_last_words_of_a_call_are_waited_for_without_a_client() -> None:
    """Row S17: they go on the call's timeline."""
    desk = Desk()
    desk.session.detach(1)
    desk.hear(400, 1.0)
    desk.session.close("hangup", desk.now)
    desk.drain()
    (asked,) = desk.commands(Transcribe)[-1:]
    assert desk.commands(SessionClosed) == []
    desk.engine(Transcribed(asked.item_id, asked.revision, "Good bye.", 0.4))
    assert [note.title for note in desk.commands(SessionNote)] == ["Good bye."]
    assert desk.commands(SessionClosed) == [SessionClosed("hangup")]


# Without a phone: the client is the microphone and the loudspeaker.


def test_a_session_without_a_call_streams_both_ways() -> None:
    """Row S03."""
    desk = Desk(sip=False, audio_format="audio/pcm")
    assert desk.error("input_audio_buffer.append", audio="A")["param"] == "audio"
    assert desk.error("input_audio_buffer.append", audio="AA==")["param"] == "audio"
    assert desk.send("input_audio_buffer.append", audio=base64.b64encode(b"\1\0" * 720).decode()) == []
    assert [len(hear.audio) for hear in desk.commands(HearAudio)] == [960]
    desk.send("input_audio_buffer.append", audio=base64.b64encode(b"\1\0" * 240).decode())
    assert [len(hear.audio) for hear in desk.commands(HearAudio)] == [960]
    command = desk.respond()
    events = desk.engine(ResponseSpeech(command.response_id, command.generation, "Hi.", b"\1\0" * 24000))
    deltas = [event for event in events if event["type"] == "response.output_audio.delta"]
    assert b"".join(base64.b64decode(event["delta"]) for event in deltas) == b"\1\0" * 24000
    assert not [kind for kind in types(events) if kind.startswith("output_audio_buffer")]
    assert desk.commands(PlayAudio) == []
