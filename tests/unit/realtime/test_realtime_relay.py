"""The core of a relayed call, in virtual time. Rows are those of docs/reference/api-rows.md."""

from __future__ import annotations

import random

import pytest

from offhook.realtime.engine import (
    EngineFailed,
    ReopenUpstream,
    UpstreamLost,
)
from offhook.realtime.outbox import ClearPlayout, PlayAudio, ServerEvent, SessionClosed, SessionNote
from testbed.relay_line import FRAME, SESSION, RelayLine


def test_session_created_waits_for_the_upstreams_and_shows_its_session():
    line = RelayLine(open_now=False)
    line.relay.attach(1)
    assert line.take().told == []
    line.open()
    line.relay.attach(2)
    first, later = line.take().events("session.created")
    assert first == {"type": "session.created", "event_id": "event_up_1", "session": SESSION}
    assert later["session"] == SESSION
    assert later["event_id"] != first["event_id"]
    assert line.relay.describe()["id"] == "sess_up"


def test_what_the_app_sends_before_the_upstream_is_open_goes_up_in_order():
    line = RelayLine(open_now=False)
    line.relay.attach(1)
    line.app(type="session.update", event_id="a", session={"type": "realtime", "instructions": "x"})
    line.app(type="response.create", event_id="b")
    assert line.sent == []
    line.open()
    assert [event["event_id"] for event in line.sent] == ["a", "b"]


def test_events_pass_with_their_ids_known_or_not():
    line = RelayLine()
    line.up("something.new", value=[1])
    event = line.events("something.new")[0]
    assert event["value"] == [1]
    assert event["event_id"].startswith("event_up_")
    line.app(type="conversation.item.retrieve", event_id="mine", item_id="item_9")
    assert line.sent == [{"type": "conversation.item.retrieve", "event_id": "mine", "item_id": "item_9"}]


def test_formats_and_model_of_the_app_stay_here():
    """Rows E03, E04, E06, G23."""
    line = RelayLine()
    audio = {"input": {"format": None, "noise_reduction": None}, "output": {"format": {"type": "audio/pcm"}}}
    line.app(type="session.update", session={"type": "realtime", "model": "gpt-realtime", "audio": audio})
    sent = line.sent[0]["session"]
    assert sent == {"type": "realtime", "audio": {"input": {"noise_reduction": None}, "output": {}}}


def test_the_played_clock_says_when_sound_starts_and_stops():
    """Row O04."""
    line = RelayLine()
    line.speak(10)
    line.done()
    assert line.told[-3:] == ["output_audio_buffer.started", "response.output_audio.delta", "response.done"]
    line.played(199)
    assert "output_audio_buffer.stopped" not in line.told
    line.played(200)
    assert line.told[-1] == "output_audio_buffer.stopped"
    assert line.kinds(PlayAudio)[0].audio == FRAME * 10
    line.up("output_audio_buffer.stopped", response_id="resp_1")
    assert line.told.count("output_audio_buffer.stopped") == 1


def test_barge_in_clears_then_truncates_to_what_was_heard():
    """Row O09."""
    line = RelayLine()
    line.speak(10)
    line.played(60)
    line.up("input_audio_buffer.speech_started", audio_start_ms=5, item_id="item_2")
    assert len(line.kinds(ClearPlayout)) == 1
    assert line.told[-2:] == ["input_audio_buffer.speech_started", "output_audio_buffer.cleared"]
    truncate = line.sent[-1]
    assert truncate.pop("event_id").startswith("offhook_")
    assert truncate == {
        "type": "conversation.item.truncate",
        "item_id": "item_1",
        "content_index": 0,
        "audio_end_ms": 60,
    }
    before = len(line.kinds(PlayAudio))
    place = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
    line.up("response.output_audio.delta", FRAME, delta="AAAA", **place)
    assert len(line.kinds(PlayAudio)) == before


def test_without_interrupt_response_nobody_is_cut():
    """Row O10."""
    line = RelayLine(open_now=False)
    turns = {"type": "server_vad", "interrupt_response": False}
    line.open(SESSION | {"audio": {"input": {"turn_detection": turns}}})
    line.speak(10)
    line.up("input_audio_buffer.speech_started", audio_start_ms=5, item_id="item_2")
    assert line.kinds(ClearPlayout) == []
    assert line.sent == []


def test_output_audio_buffer_clear_is_ours():
    """Row E17."""
    line = RelayLine()
    line.app(type="output_audio_buffer.clear")
    assert line.sent == []
    line.speak(10)
    line.played(40)
    line.app(type="output_audio_buffer.clear")
    assert [event["type"] for event in line.sent] == ["conversation.item.truncate", "response.cancel"]
    assert line.told[-1] == "output_audio_buffer.cleared"


def test_a_truncation_that_we_made_already_is_tolerated():
    """Row E21."""
    line = RelayLine()
    line.speak(10)
    line.played(40)
    line.up("input_audio_buffer.speech_started", audio_start_ms=5, item_id="item_2")
    sent = len(line.sent)
    line.app(type="conversation.item.truncate", item_id="item_1", content_index=0, audio_end_ms=90)
    assert len(line.sent) == sent
    assert line.events("conversation.item.truncated")[0]["audio_end_ms"] == 40
    assert line.events("error") == []


def test_an_error_waits_for_session_created_like_anything_else():
    line = RelayLine(open_now=False)
    line.relay.attach(1)
    line.app(type="input_audio_buffer.append", audio="")
    assert line.told == []
    line.open()
    assert line.told == ["session.created", "error"]


def test_two_apps_that_number_their_events_alike_both_hear_of_an_error():
    line = RelayLine()
    line.relay.attach(2)
    for sender in (1, 2):
        line.app(sender=sender, type="response.create", event_id="create_1")
    line.take().outputs.clear()
    line.up("error", error={"message": "Not now.", "event_id": "create_1"})
    assert [output.to for output in line.kinds(ServerEvent)] == [None]


def test_what_cannot_be_sent_on_is_said_to_who_sent_it():
    line = RelayLine()
    deep = '{"type":"x","event_id":"e1","a":' + "[" * 400 + "]" * 400 + "}"
    line.relay.receive_client_event(deep, sender=1, now=0.0)
    (error,) = line.take().events("error")
    assert error["error"]["code"] == "invalid_json"
    assert line.sent == []
    wide = '{"type":"x","a":[' + "[]," * 400 + "[]]}"
    line.relay.receive_client_event(wide, sender=1, now=0.0)
    assert len(line.take().sent) == 1


def test_what_a_lost_upstream_said_can_be_truncated_by_the_app():
    line = RelayLine()
    line.speak(50)
    line.lose()
    line.reopen()
    line.app(type="conversation.item.truncate", item_id="item_1", content_index=0, audio_end_ms=300)
    assert "conversation.item.truncate" not in [event["type"] for event in line.sent]
    assert [event["audio_end_ms"] for event in line.events("conversation.item.truncated")] == [300]


def test_an_upstream_that_repeats_itself_is_heard_once():
    line = RelayLine()
    line.speak()
    for _ in range(2):
        line.done(usage={"total_tokens": 10})
    line.up("response.created", response={"id": "resp_1", "status": "in_progress"})
    assert line.told.count("response.done") == line.told.count("response.created") == 1
    assert [note.details["usage"] for note in line.kinds(SessionNote) if note.kind == "response"] == [
        {"total_tokens": 10}
    ]


def test_sound_that_comes_late_of_a_response_that_was_cut_is_not_heard():
    line = RelayLine()
    line.speak(50)
    line.done()
    line.up("input_audio_buffer.speech_started", item_id="item_u")
    heard = len(line.kinds(PlayAudio))
    place = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
    line.up("response.output_audio.delta", FRAME, delta="AAAA", **place)
    assert len(line.kinds(PlayAudio)) == heard


def test_an_upstream_that_ends_nothing_does_not_fill_the_memory():
    line = RelayLine()
    for number in range(1000):
        line.up("response.created", response={"id": f"resp_{number}"})
        line.up("input_audio_buffer.committed", item_id=f"item_{number}")
    line.lose()
    assert len(line.events("response.done")) == 256


def test_usage_that_changes_its_shape_is_no_fault():
    line = RelayLine()
    details = [3, {"audio_tokens": 1}, None, 4, {"audio_tokens": []}]
    for number, told in enumerate([*details, *reversed(details)]):
        line.up("response.created", response={"id": f"resp_{number}"})
        line.done(f"resp_{number}", usage={"total_tokens": 1, "input_token_details": told})
    notes = [note for note in line.kinds(SessionNote) if note.kind == "response"]
    assert len(notes) == 10
    assert notes[-1].details["usage"]["total_tokens"] == 10


def test_append_is_refused_to_its_sender_alone():
    """Row E23."""
    line = RelayLine()
    line.app(sender=1, type="input_audio_buffer.append", event_id="x", audio="AAAA")
    (refusal,) = [output for output in line.kinds(ServerEvent) if output.event["type"] == "error"]
    assert (refusal.to, refusal.event["error"]["event_id"]) == (1, "x")
    for bad in (b"\0", "{", "[]", "{}"):
        line.relay.receive_client_event(bad, sender=1, now=0.0)
    assert len(line.take().events("error")) == 5
    assert line.sent == []


def test_errors_go_to_who_asked_and_ours_to_nobody():
    """Row S14."""
    line = RelayLine()
    line.relay.attach(2)
    line.app(sender=2, type="response.create", event_id="two")
    error = {"type": "invalid_request_error", "message": "no", "code": "c", "param": None}
    line.up("error", error=error | {"event_id": "two"})
    line.up("error", error=error | {"event_id": "offhook_1"})
    line.up("error", error=error | {"event_id": None})
    assert [output.to for output in line.kinds(ServerEvent) if output.event["type"] == "error"] == [2, None]
    assert len([note for note in line.kinds(SessionNote) if note.kind == "error"]) == 3


def test_a_key_is_told_by_us():
    line = RelayLine()
    line.relay.receive_digit("5", 0.0, 1234.9)
    event = line.take().events("input_audio_buffer.dtmf_event_received")[0]
    assert (event["event"], event["received_at"]) == ("5", 1234)


def test_usage_is_summed_over_the_call():
    line = RelayLine()
    # An upstream may count what it likes, under names that mean something else on a timeline.
    usage = {"input_tokens": 10, "output_tokens": 4, "input_token_details": {"audio_tokens": 7}, "at": 1}
    for number in range(3):
        line.up("response.created", response={"id": f"resp_{number}"})
        line.done(f"resp_{number}", usage=usage)
    line.relay.close("remote_hangup", 1.0)
    note = next(note for note in line.take().kinds(SessionNote) if note.kind == "usage")
    assert note.details == {
        "usage": {
            "input_tokens": 30,
            "output_tokens": 12,
            "input_token_details": {"audio_tokens": 21},
            "at": 3,
        }
    }


def test_a_lost_upstream_is_reopened_with_the_conversation_so_far():
    line = RelayLine()
    user = {"id": "item_u", "type": "message", "role": "user", "content": [{"type": "input_audio"}]}
    line.up("conversation.item.added", item=user)
    line.up("conversation.item.done", item=user)
    line.up("conversation.item.input_audio_transcription.completed", item_id="item_u", transcript="Hi.")
    line.speak(10, item="item_a")
    said = {"type": "output_audio", "transcript": "Hello there, you."}
    agent = {"id": "item_a", "type": "message", "role": "assistant", "content": [said]}
    line.up("conversation.item.done", item=agent)
    line.relay.receive_engine_event(UpstreamLost("main closed with 1006"), 5.0)
    (reopen,) = line.take().kinds(ReopenUpstream)
    assert reopen.session == SESSION
    assert [item["content"] for item in reopen.items] == [
        [{"type": "input_text", "text": "Hi."}],
        [{"type": "output_text", "text": "Hello there, you."}],
    ]
    done = line.events("response.done")
    assert [event["response"]["status"] for event in done] == ["failed"]
    line.app(type="response.create", event_id="later")
    assert line.sent == []
    line.open(SESSION | {"id": "sess_2"})
    assert [event["event_id"] for event in line.sent] == ["later"]
    assert line.told.count("session.created") == 1
    told = len(line.told)
    line.up("conversation.item.added", item=agent)
    line.up("conversation.item.done", item=agent)
    assert len(line.told) == told


def test_what_a_lost_upstream_said_is_cut_without_asking_the_next_one():
    line = RelayLine()
    line.speak(10)
    line.played(20)
    line.relay.receive_engine_event(UpstreamLost("main closed with 1006"), 5.0)
    line.open()
    line.up("input_audio_buffer.speech_started", audio_start_ms=5, item_id="item_2")
    assert line.events("conversation.item.truncated")[0]["audio_end_ms"] == 20
    assert [event["type"] for event in line.sent] == ["response.create"]


def test_a_loss_ends_everything_that_was_begun_once():
    """Rows O11, O12."""
    line = RelayLine()
    item = {"id": "item_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    place = {"response_id": "resp_1", "output_index": 0}
    line.up("response.created", response={"id": "resp_1"})
    line.up("response.output_item.added", item=item, **place)
    line.up("conversation.item.added", item=item)
    part = {"type": "audio", "transcript": ""}
    line.up("response.content_part.added", item_id="item_1", content_index=0, part=part, **place)
    line.relay.receive_engine_event(UpstreamLost("main closed with 1006"), 5.0)
    line.take()
    assert line.told[-4:] == [
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert line.events("response.output_item.done")[0]["item"]["status"] == "incomplete"
    line.relay.receive_engine_event(EngineFailed("none left"), 6.0)
    assert line.take().told.count("response.done") == 1


def test_closing_waits_for_the_last_words_and_no_longer():
    """Row S17."""
    line = RelayLine()
    line.speak(10)
    line.relay.close("remote_hangup", 10.0)
    assert line.take().kinds(SessionClosed) == []
    assert line.sent[-1]["type"] == "response.cancel"
    assert line.relay.next_timer() == 11.0
    line.relay.handle_timer(11.0)
    assert line.take().told[-1] == "response.done"
    assert line.kinds(SessionClosed)[0].reason == "remote_hangup"
    assert line.relay.next_timer() is None


def test_closing_ends_at_once_when_nothing_is_under_way():
    line = RelayLine()
    line.relay.close("hangup", 1.0)
    assert [closed.reason for closed in line.take().kinds(SessionClosed)] == ["hangup"]


JUNK = [
    None,
    7,
    -1.5,
    "x",
    "",
    [],
    ["x"],
    [[]],
    {},
    {"id": []},
    {"id": "i", "content": ["x", {"type": []}]},
    True,
]
TYPES = [
    "conversation.item.added",
    "conversation.item.created",
    "conversation.item.deleted",
    "conversation.item.done",
    "conversation.item.input_audio_transcription.completed",
    "conversation.item.truncated",
    "error",
    "input_audio_buffer.committed",
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "response.content_part.added",
    "response.content_part.done",
    "response.created",
    "response.done",
    "response.function_call_arguments.done",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.delta",
    "response.output_audio_transcript.done",
    "response.output_item.added",
    "response.output_item.done",
    "session.updated",
]
FIELDS = [
    *("item", "item_id", "previous_item_id", "response", "response_id", "session", "error", "part"),
    *("content_index", "delta", "transcript", "text", "audio_end_ms", "usage"),
]


@pytest.mark.parametrize("seed", range(8))
def test_no_nonsense_of_an_upstream_or_an_app_is_a_fault_of_ours(seed: int):
    """The runner would go on after a fault, but its event would be lost."""
    draw = random.Random(seed)
    line = RelayLine()
    for number in range(400):
        kind = draw.choice(TYPES)
        fields = {name: draw.choice(JUNK) for name in draw.sample(FIELDS, draw.randrange(len(FIELDS)))}
        told = len(line.told)
        line.up(kind, FRAME if draw.random() < 0.5 else b"", **fields)
        named = any(isinstance(part, dict) and part.get("id") == "i" for part in fields.values())
        if not named and not (
            kind.startswith("response.content_part") and isinstance(fields.get("item_id"), str)
        ):
            # What has a name may have begun or ended before.
            assert kind in line.told[told:], (kind, fields)
        line.relay.playout_progress(number * 20, line.now)
        asked = {"type": draw.choice(["conversation.item.create", "response.create", "session.update", "x"])}
        line.app(**asked, **{name: draw.choice(JUNK) for name in ("item", "response", "session", "event_id")})
        if draw.random() < 0.05:
            line.lose()
            line.wait(draw.random() * 3)
            line.reopen()
    line.relay.close("remote_hangup", line.now)
    line.wait(2)
    assert line.take().kinds(SessionClosed)
