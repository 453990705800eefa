"""Azure's older form: flat sessions and the names of before (rows G21, G22)."""

from __future__ import annotations

import json

import pytest

from offhook.realtime.engines.upstream.beta import BetaDialect
from offhook.realtime.engines.upstream.target import Upstream, handshake

PLACE = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0, "event_id": "e"}


def test_a_session_goes_up_flat():
    turns = {"type": "server_vad", "silence_duration_ms": 450}
    session = {
        "type": "realtime",
        "instructions": "Be kind.",
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "turn_detection": turns,
                "transcription": {"model": "whisper-1"},
                "noise_reduction": None,
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "ash", "speed": 1.1},
        },
        "max_output_tokens": 512,
        "tools": [{"type": "function", "name": "look"}],
        "truncation": "auto",
        "later": 1,
    }
    before = json.dumps(session)
    up = BetaDialect().up({"type": "session.update", "event_id": "e", "session": session})
    assert up == {
        "type": "session.update",
        "event_id": "e",
        "session": {
            "instructions": "Be kind.",
            "modalities": ["text", "audio"],
            "input_audio_format": "g711_ulaw",
            "turn_detection": turns,
            "input_audio_transcription": {"model": "whisper-1"},
            "input_audio_noise_reduction": None,
            "output_audio_format": "pcm16",
            "voice": "ash",
            "speed": 1.1,
            "max_response_output_tokens": 512,
            "tools": [{"type": "function", "name": "look"}],
            "later": 1,
        },
    }
    assert json.dumps(session) == before


def test_a_session_comes_down_as_the_ga_form_has_it_and_goes_up_as_it_came():
    flat = {
        "id": "sess_1",
        "modalities": ["audio", "text"],
        "voice": "ash",
        "input_audio_format": "g711_alaw",
        "output_audio_format": "g711_alaw",
        "turn_detection": None,
        "max_response_output_tokens": "inf",
        "temperature": 0.8,
    }
    (event,) = BetaDialect().down({"type": "session.created", "event_id": "e", "session": flat})
    assert event["session"] == {
        "type": "realtime",
        "id": "sess_1",
        "output_modalities": ["audio"],
        "max_output_tokens": "inf",
        "audio": {
            "input": {"format": {"type": "audio/pcma"}, "turn_detection": None},
            "output": {"format": {"type": "audio/pcma"}, "voice": "ash"},
        },
    }
    up = BetaDialect().up({"type": "session.update", "session": event["session"]})["session"]
    assert up == {name: flat[name] for name in flat if name != "temperature"} | {
        "modalities": ["text", "audio"]
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("response.audio.delta", "response.output_audio.delta"),
        ("response.audio.done", "response.output_audio.done"),
        ("response.audio_transcript.delta", "response.output_audio_transcript.delta"),
        ("response.audio_transcript.done", "response.output_audio_transcript.done"),
        ("response.text.delta", "response.output_text.delta"),
        ("response.text.done", "response.output_text.done"),
        ("input_audio_buffer.speech_started", "input_audio_buffer.speech_started"),
        ("something.new", "something.new"),
    ],
)
def test_events_get_their_present_names(old: str, new: str):
    event = {"type": old, "delta": "AAAA", **PLACE}
    assert BetaDialect().down(event) == [event | {"type": new}]


def test_an_item_that_is_whole_is_added_and_done():
    dialect = BetaDialect()
    item = {"id": "item_u", "role": "user", "status": "completed", "content": [{"type": "input_audio"}]}
    event = {
        "type": "conversation.item.created",
        "event_id": "e",
        "previous_item_id": "item_0",
        "item": item,
    }
    added, done = dialect.down(event)
    assert (added["type"], done["type"]) == ("conversation.item.added", "conversation.item.done")
    assert added["event_id"] != done["event_id"]
    for one in (added, done):
        assert (one["item"], one["previous_item_id"]) == (item, "item_0")


def test_an_item_that_is_being_made_is_done_right_before_its_output_item():
    """Row O03."""
    dialect = BetaDialect()
    item = {"id": "item_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    created = {"type": "conversation.item.created", "event_id": "a", "previous_item_id": None, "item": item}
    assert [event["type"] for event in dialect.down(created)] == ["conversation.item.added"]
    parts = [{"type": "audio", "transcript": "Hi."}, {"type": "text", "text": "Hi."}]
    whole = item | {"status": "completed", "content": parts}
    done, output = dialect.down({"type": "response.output_item.done", "event_id": "b", "item": whole})
    assert (done["type"], output["type"]) == ("conversation.item.done", "response.output_item.done")
    assert [part["type"] for part in output["item"]["content"]] == ["output_audio", "output_text"]
    assert done["item"] == output["item"]
    assert len(dialect.down({"type": "response.output_item.done", "event_id": "c", "item": whole})) == 1


def test_what_was_not_said_then_is_said_now():
    """Rows V04, V05."""
    dialect = BetaDialect()
    call = {"id": "item_f", "type": "function_call", "name": "look", "call_id": "call_1"}
    dialect.down({"type": "response.output_item.added", "event_id": "a", "item": call})
    (done,) = dialect.down(
        {
            "type": "response.function_call_arguments.done",
            "event_id": "b",
            "item_id": "item_f",
            "arguments": "{}",
        }
    )
    assert done["name"] == "look"
    (heard,) = dialect.down(
        {
            "type": "conversation.item.input_audio_transcription.completed",
            "event_id": "c",
            "transcript": "Hi.",
        }
    )
    assert heard["usage"] == {"type": "duration", "seconds": 0.0}


def test_responses_have_their_present_shape():
    content = [{"type": "audio", "transcript": "Hi."}]
    response = {
        "id": "resp_1",
        "modalities": ["text", "audio"],
        "voice": "ash",
        "output_audio_format": "pcm16",
        "output": [{"id": "item_1", "type": "message", "content": content}],
        "usage": {"total_tokens": 3},
    }
    (event,) = BetaDialect().down({"type": "response.done", "event_id": "e", "response": response})
    assert event["response"] == {
        "id": "resp_1",
        "output_modalities": ["audio"],
        "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "ash"}},
        "output": [{"id": "item_1", "type": "message", "content": [content[0] | {"type": "output_audio"}]}],
        "usage": {"total_tokens": 3},
    }


def test_items_and_responses_go_up_in_the_old_words():
    dialect = BetaDialect()
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]}
    up = dialect.up({"type": "conversation.item.create", "item": said})
    assert up["item"]["content"] == [{"type": "text", "text": "Hi."}]
    asked = {"output_modalities": ["text"], "audio": {"output": {"voice": "ash"}}, "input": [said]}
    assert dialect.up({"type": "response.create", "response": asked})["response"] == {
        "modalities": ["text"],
        "voice": "ash",
        "input": [up["item"]],
    }
    assert dialect.up({"type": "response.create"}) == {"type": "response.create"}


def test_nonsense_passes_through():
    dialect = BetaDialect()
    for kind in (
        "session.updated",
        "conversation.item.created",
        "response.done",
        "response.output_item.done",
    ):
        for value in (None, "x", [1], {"content": "x"}, {"output": "x"}):
            assert dialect.down({"type": kind, "session": value, "item": value, "response": value})


def test_who_speaks_it():
    url = "https://r.openai.azure.com"
    assert Upstream("a", url, kind="azure", api_version="v").speaks_beta
    assert not Upstream("a", url, kind="azure").speaks_beta
    assert not Upstream("a", url, kind="azure", api_version="v", dialect="ga").speaks_beta
    assert Upstream("a", f"{url}/openai/realtime?api-version=v&deployment=d", kind="azure").speaks_beta
    other = Upstream("x", "ws://127.0.0.1:9/v1/realtime", "k", dialect="beta")
    assert handshake(other, "m")[1] == {"Authorization": "Bearer k", "OpenAI-Beta": "realtime=v1"}
