"""Client events and what they cause: rows E01 to E25 and S21, on the pure session with an engine played by the test."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from offhook.realtime.engine import (
    CancelResponse,
    FunctionCallArguments,
    FunctionCallStarted,
    Respond,
    ResponseFinished,
    ResponseSpeech,
    ResponseText,
    Transcribe,
    Transcribed,
)
from offhook.realtime.session import (
    ClearPlayout,
    HearAudio,
    PlayAudio,
    SessionClosed,
    SessionNote,
)
from offhook.realtime.sideband_audio import convert
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


# session.update.


def test_update_answers_with_the_whole_session() -> None:
    desk = Desk()
    (event,) = desk.send("session.update", session={"type": "realtime", "instructions": "Be brief."})
    assert event["type"] == "session.updated"
    assert event["session"]["instructions"] == "Be brief."
    assert event["session"]["audio"]["input"]["turn_detection"]["interrupt_response"] is True
    assert desk.respond().instructions == "Be brief."


def test_a_bad_update_changes_nothing() -> None:
    desk = Desk(instructions="Old.")
    error = desk.error(
        "session.update",
        event_id="u1",
        session={"type": "realtime", "instructions": "New.", "tools": [{"type": "mcp"}]},
    )
    assert (error["code"], error["param"], error["event_id"]) == (
        "invalid_value",
        "session.tools[0].type",
        "u1",
    )
    assert desk.respond().instructions == "Old."


def test_what_both_agents_sdks_send_at_attach_is_fine() -> None:
    """Rows X07, X08, X09, E06, E08."""
    desk = Desk(model="mine")
    pcm = {"type": "audio/pcm", "rate": 24000}
    updates: list[dict[str, Any]] = [
        {
            "type": "realtime",
            "model": "gpt-realtime",
            "output_modalities": ["audio"],
            "audio": {
                "input": {
                    "format": None,
                    "transcription": {"model": "gpt-4o-mini-transcribe"},
                    "turn_detection": {"type": "semantic_vad"},
                },
                "output": {"format": None, "voice": "ash"},
            },
            "tools": [{"type": "function", "name": "f", "description": "", "parameters": {}}],
        },
        {"type": "realtime", "model": "gpt-realtime-2.1", "tracing": "auto"},
        {
            "type": "realtime",
            "audio": {
                "input": {"format": pcm, "noise_reduction": None},
                "output": {"format": pcm, "voice": "ash", "speed": 1},
            },
        },
    ]
    for session in updates:
        (event,) = desk.send("session.update", session=session)
        assert event["type"] == "session.updated"
        assert event["session"]["model"] == "mine"
    assert event["session"]["tracing"] == "auto"
    assert event["session"]["tools"][0]["name"] == "f"


def test_a_voice_cannot_change_once_heard_but_the_rest_can() -> None:
    """Row E07."""
    desk = Desk(audio={"output": {"voice": "ash"}})
    command = desk.respond()
    desk.say(command, "Hello.")
    desk.finish(command)
    events = desk.send(
        "session.update",
        event_id="u1",
        session={"type": "realtime", "instructions": "New.", "audio": {"output": {"voice": "coral"}}},
    )
    assert types(events) == ["error", "session.updated"]
    assert (events[0]["error"]["code"], events[0]["error"]["event_id"]) == ("cannot_update_voice", "u1")
    assert events[1]["session"]["audio"]["output"]["voice"] == "ash"
    assert events[1]["session"]["instructions"] == "New."
    (event,) = desk.send(
        "session.update", session={"type": "realtime", "audio": {"output": {"voice": "ash"}}}
    )
    assert event["type"] == "session.updated"


def test_an_update_during_a_response_counts_for_the_next() -> None:
    """Row E09."""
    desk = Desk(output_modalities=["text"])
    first = desk.respond()
    desk.send("session.update", session={"type": "realtime", "output_modalities": ["audio"]})
    events = desk.engine(ResponseText(first.response_id, first.generation, "Hello."))
    assert "response.output_text.delta" in types(events)
    desk.finish(first)
    assert desk.respond().audio is True


# response.create.


def test_one_response_at_a_time() -> None:
    """Rows E11, E12."""
    desk = Desk()
    command = desk.respond()
    error = desk.error("response.create", event_id="agents_py_response_create_2")
    assert error["code"] == "conversation_already_has_active_response"
    assert f"in progress: {command.response_id}." in error["message"]
    assert error["event_id"] == "agents_py_response_create_2"


def test_overrides_of_one_response() -> None:
    """Row E14."""
    desk = Desk(instructions="Session's.", tools=[{"type": "function", "name": "f"}])
    events = desk.send(
        "response.create",
        response={
            "instructions": "Only now.",
            "output_modalities": ["text"],
            "tools": [{"type": "function", "name": "g", "parameters": {"type": "object"}}],
            "tool_choice": "required",
            "max_output_tokens": 50,
            "metadata": {"topic": "x"},
            "audio": {"output": {"voice": "coral", "format": {"type": "audio/pcmu"}}},
        },
    )
    created = events[0]["response"]
    assert created["metadata"] == {"topic": "x"}
    assert created["output_modalities"] == ["text"]
    assert created["audio"]["output"] == {"format": {"type": "audio/pcmu"}, "voice": "coral"}
    (command,) = desk.commands(Respond)
    assert command.instructions == "Only now."
    assert command.tools == [{"type": "function", "name": "g", "parameters": {"type": "object"}}]
    assert (command.tool_choice, command.max_output_tokens, command.audio) == ("required", 50, False)
    assert command.voice == "coral"
    desk.finish(command)
    after = desk.respond()
    assert (after.instructions, after.tools[0]["name"]) == ("Session's.", "f")


@pytest.mark.parametrize(
    ("response", "param"),
    [
        ({"metadata": {f"k{i}": "v" for i in range(17)}}, "response.metadata"),
        ({"conversation": "other"}, "response.conversation"),
        ({"max_output_tokens": 0}, "response.max_output_tokens"),
        ({"tools": [{"type": "mcp"}]}, "response.tools[0].type"),
        ({"input": [{"type": "item_reference", "id": "nowhere"}]}, "response.input[0].id"),
        ({"input": [{"type": "message", "role": "robot", "content": []}]}, "response.input[0].role"),
    ],
)
def test_bad_overrides(response: dict[str, Any], param: str) -> None:
    error = Desk().error("response.create", event_id="c1", response=response)
    assert (error["param"], error["event_id"]) == (param, "c1")


def test_out_of_band() -> None:
    """Row E15: beside the conversation, and in parallel."""
    desk = Desk()
    desk.send("conversation.item.create", item=MESSAGE | {"id": "item_a"})
    normal = desk.respond()
    events = desk.send(
        "response.create",
        response={
            "conversation": "none",
            "output_modalities": ["text"],
            "input": [{"type": "item_reference", "id": "item_a"}, MESSAGE],
        },
    )
    assert events[0]["response"]["conversation_id"] is None
    (aside,) = desk.commands(Respond)
    assert [item["content"][0]["text"] for item in aside.items] == ["Hi", "Hi"]
    events = desk.engine(
        ResponseText(aside.response_id, aside.generation, "Aside."),
        ResponseFinished(aside.response_id, aside.generation),
    )
    assert not [kind for kind in types(events) if kind.startswith("conversation.item")]
    assert events[-1]["response"]["output"][0]["content"] == [{"type": "output_text", "text": "Aside."}]
    assert [item.id for item in desk.session.conversation] == ["item_a"]
    desk.say(normal, "In the conversation.")
    assert types(desk.finish(normal))[-1] == "response.done"


def test_an_empty_input_is_an_empty_context() -> None:
    desk = Desk()
    desk.send("conversation.item.create", item=MESSAGE)
    assert desk.respond(input=[]).items == []


def test_cancel() -> None:
    """Row E16."""
    desk = Desk()
    command = desk.respond()
    desk.say(command, "One.")
    events = desk.send("response.cancel")
    done = events[-1]["response"]
    assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert done["output"][0]["status"] == "incomplete"
    assert desk.commands(CancelResponse) == [CancelResponse(command.response_id)]
    assert desk.error("response.cancel", event_id="c")["code"] == "response_cancel_not_active"
    # What the engine sends late is dropped.
    assert desk.say(command, "Two.") == []
    assert desk.finish(command) == []


def test_cancel_by_id() -> None:
    desk = Desk()
    command = desk.respond()
    assert desk.error("response.cancel", response_id="resp_x")["code"] == "response_cancel_not_active"
    assert types(desk.send("response.cancel", response_id=command.response_id)) == ["response.done"]


def test_another_generation_is_stale() -> None:
    desk = Desk()
    command = desk.respond()
    assert desk.engine(ResponseSpeech(command.response_id, command.generation + 1, "Old.", b"")) == []


def test_output_audio_buffer_clear() -> None:
    """Row E17: JS clients interrupt with this alone."""
    desk = Desk()
    assert desk.send("output_audio_buffer.clear") == []
    command = desk.respond()
    desk.say(command, "A long story.")
    events = desk.send("output_audio_buffer.clear")
    assert types(events)[:2] == ["output_audio_buffer.cleared", "conversation.item.truncated"]
    assert events[-1]["response"]["status_details"]["reason"] == "client_cancelled"
    assert desk.commands(ClearPlayout)


def test_half_a_function_call_is_not_run() -> None:
    """Row V11: clients run a call that is completed."""
    desk = Desk()
    command = desk.respond()
    rid, generation = command.response_id, command.generation
    desk.engine(
        FunctionCallStarted(rid, generation, "call_1", "f"),
        FunctionCallArguments(rid, generation, "call_1", '{"a":'),
    )
    events = desk.send("response.cancel")
    assert types(events) == [
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert events[2]["item"]["status"] == "incomplete"
    assert events[3]["response"]["status"] == "cancelled"


def test_arguments_that_are_no_object_are_not_run_even_when_the_engine_is_done() -> None:
    desk = Desk()
    command = desk.respond()
    rid, generation = command.response_id, command.generation
    events = desk.engine(
        FunctionCallStarted(rid, generation, "call_1", "f"),
        FunctionCallArguments(rid, generation, "call_1", '{"a":'),
        ResponseFinished(rid, generation),
    )
    assert [e["item"]["status"] for e in events if e["type"] == "response.output_item.done"] == ["incomplete"]


def test_a_call_is_told_as_soon_as_it_is_whole() -> None:
    """A client can start its tool while the engine still speaks."""
    desk = Desk()
    command = desk.respond()
    rid, generation = command.response_id, command.generation
    events = desk.engine(
        FunctionCallStarted(rid, generation, "call_1", "f"),
        FunctionCallArguments(rid, generation, "call_1", '{"a":{"b":1}'),
    )
    assert "response.output_item.done" not in types(events)
    events = desk.engine(FunctionCallArguments(rid, generation, "call_1", "}"))
    assert events[-1]["item"]["status"] == "completed"
    assert events[-1]["item"]["arguments"] == '{"a":{"b":1}}'


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


def test_usage() -> None:
    """Row O19."""
    desk = Desk()
    command = desk.respond()
    usage = desk.finish(command, input_tokens=30, output_tokens=12)[-1]["response"]["usage"]
    assert (usage["total_tokens"], usage["input_tokens"], usage["output_tokens"]) == (42, 30, 12)
    assert set(usage["input_token_details"]) >= {
        "text_tokens",
        "audio_tokens",
        "image_tokens",
        "cached_tokens",
    }
    assert set(usage["output_token_details"]) == {"text_tokens", "audio_tokens"}


# Items.


def test_items_in_the_places_that_were_asked_for() -> None:
    """Row E18."""
    desk = Desk()
    first = desk.send("conversation.item.create", item=MESSAGE | {"id": "a"})
    assert types(first) == ["conversation.item.added", "conversation.item.done"]
    assert first[0]["previous_item_id"] is None
    assert first[0]["item"] == MESSAGE | {"id": "a", "object": "realtime.item", "status": "completed"}
    assert desk.send("conversation.item.create", item=MESSAGE | {"id": "b"})[0]["previous_item_id"] == "a"
    root = desk.send("conversation.item.create", item=MESSAGE | {"id": "c"}, previous_item_id="root")
    assert root[0]["previous_item_id"] is None
    after = desk.send("conversation.item.create", item=MESSAGE | {"id": "d"}, previous_item_id="a")
    assert after[0]["previous_item_id"] == "a"
    assert [item.id for item in desk.session.conversation] == ["c", "a", "d", "b"]
    unknown = desk.error("conversation.item.create", item=MESSAGE, previous_item_id="z")
    assert unknown["param"] == "previous_item_id"
    assert desk.error("conversation.item.create", item=MESSAGE | {"id": "a"})["param"] == "item.id"
    assert len(desk.session.conversation) == 4


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "x"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_audio", "transcript": "x"}]},
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "call_1"},
        {"type": "function_call_output", "call_id": "call_1", "output": "{}"},
    ],
)
def test_every_kind_of_item(item: dict[str, Any]) -> None:
    """Row E19."""
    desk = Desk()
    events = desk.send("conversation.item.create", item=item)
    assert types(events) == ["conversation.item.added", "conversation.item.done"]
    echoed = events[0]["item"]
    assert {name: echoed[name] for name in item} == item
    assert desk.respond().items[0]["type"] == item["type"]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "mcp_approval_response", "id": "x"}, "item.type"),
        ({"type": "message", "role": "robot", "content": []}, "item.role"),
        (
            {"type": "message", "role": "user", "content": [{"type": "text", "text": "x"}]},
            "item.content[0].type",
        ),
        ({"type": "message", "role": "user", "content": [{"type": "input_text"}]}, "item.content[0].text"),
        ({"type": "function_call_output", "call_id": "c", "output": {}}, "item.output"),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "?"}]},
            "item.content[0].audio",
        ),
        ("x", "item"),
        ({}, "item.type"),
    ],
)
def test_bad_items(item: Any, param: str) -> None:
    assert Desk().error("conversation.item.create", item=item)["param"] == param


def test_audio_that_a_client_wrote_is_put_into_words_first() -> None:
    desk = Desk()
    sound = base64.b64encode(b"\0" * 48000).decode()
    item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": sound}]}
    desk.send("conversation.item.create", item=item)
    (transcribe,) = desk.commands(Transcribe)
    # A second of 24 kHz PCM is a second of G.711.
    assert len(transcribe.audio) == pytest.approx(8000, abs=20)
    desk.send("response.create")
    assert desk.commands(Respond) == []
    desk.engine(Transcribed(transcribe.item_id, transcribe.revision, "Hello.", 1.0))
    (respond,) = desk.commands(Respond)
    assert respond.items[0]["content"][0]["transcript"] == "Hello."


def test_retrieve_and_delete() -> None:
    """Rows E20, E22."""
    desk = Desk()
    desk.send("conversation.item.create", item=MESSAGE | {"id": "a"})
    (event,) = desk.send("conversation.item.retrieve", item_id="a")
    assert event["item"]["content"] == MESSAGE["content"]
    (event,) = desk.send("conversation.item.delete", item_id="a")
    assert (event["type"], event["item_id"]) == ("conversation.item.deleted", "a")
    assert desk.error("conversation.item.retrieve", item_id="a")["code"] == "item_retrieve_invalid_item_id"
    error = desk.error("conversation.item.delete", item_id="yo")
    assert error["code"] == "item_delete_invalid_item_id"
    assert error["message"] == "Error deleting item: the item with id 'yo' does not exist."


@pytest.mark.parametrize(
    ("target", "bytes_per_ms"), [("audio/pcm", 48), ("audio/pcma", 8), ("audio/pcmu", 8)]
)
def test_a_retrieved_item_has_its_whole_sound(target: str, bytes_per_ms: int) -> None:
    """Row E20: however long it is, in the format of the session, as if it had been encoded in one go."""
    audio_format = {"type": target} | ({"rate": 24000} if target == "audio/pcm" else {})
    desk = Desk(audio={"output": {"format": audio_format}})
    command = desk.respond()
    sound = bytes(range(256)) * 250  # 8 s of every code
    desk.engine(ResponseSpeech(command.response_id, command.generation, "Hm.", sound))
    item_id = desk.finish(command)[-1]["response"]["output"][0]["id"]
    (event,) = desk.send("conversation.item.retrieve", item_id=item_id)
    audio = base64.b64decode(event["item"]["content"][0]["audio"], validate=True)
    assert len(audio) == 8000 * bytes_per_ms
    whole = convert(sound, "audio/pcmu", target)  # type: ignore[arg-type]
    if target == "audio/pcm":  # the resampler rounds with a dither
        assert np.max(np.abs(np.frombuffer(audio, "<i2") - np.frombuffer(whole, "<i2").astype(int))) <= 2
    else:
        assert audio == whole


def test_truncate() -> None:
    """Row E21."""
    desk = Desk()
    command = desk.respond()
    desk.say(command, "One two three four.", ms=2000)
    item_id = desk.finish(command)[-1]["response"]["output"][0]["id"]
    assert desk.error("conversation.item.truncate", item_id="x", content_index=0, audio_end_ms=0)["code"] == (
        "item_truncate_invalid_item_id"
    )
    too_long = desk.error("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=2001)
    assert too_long["param"] == "audio_end_ms"
    wrong = desk.error("conversation.item.truncate", item_id=item_id, content_index=1, audio_end_ms=0)
    assert wrong["param"] == "content_index"
    (event,) = desk.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=1000)
    assert event["audio_end_ms"] == 1000
    # Once more is no error, and does not make it longer.
    (event,) = desk.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=1500)
    assert event["audio_end_ms"] == 1000
    (event,) = desk.send("conversation.item.retrieve", item_id=item_id)
    assert event["item"]["content"][0]["transcript"] == "One two"
    desk.send("conversation.item.create", item=MESSAGE | {"id": "u"})
    assert (
        desk.error("conversation.item.truncate", item_id="u", content_index=0, audio_end_ms=0)["param"]
        == "item_id"
    )


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
