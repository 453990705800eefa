"""What clients ask of responses, and what comes of it (rows E11 to E17, O19), with an engine played by the test."""

from __future__ import annotations

import base64
from typing import Any

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
    SessionNote,
)
from testbed.by_hand import Desk, types

MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}


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
        (
            {
                "input": [
                    {
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_audio", "audio": "?"}],
                    }
                ]
            },
            "response.input[0].content[0].audio",
        ),
        ({"tool_choice": {"type": "function", "name": "f"}}, "response.tool_choice.name"),
        ({"tool_choice": {"type": "mcp", "server_label": "s"}}, "response.tool_choice.type"),
        ({"metadata": {"k": "v" * 513}}, "response.metadata.k"),
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


SOUND = {"type": "input_audio", "audio": base64.b64encode(b"\0\0" * 24000).decode()}


def test_the_sound_in_an_input_is_put_into_words_first_and_nobody_is_told() -> None:
    """Row E15: the engine answers words; the item is none of the conversation's."""
    desk = Desk(audio={"input": {"transcription": {"model": "whisper-1"}}})
    spoken = {"type": "message", "role": "user", "content": [SOUND]}
    desk.send("response.create", response={"conversation": "none", "input": [spoken]})
    assert desk.commands(Respond) == []
    (asked,) = desk.commands(Transcribe)
    events = desk.engine(Transcribed(asked.item_id, asked.revision, "Is this spam?", 1.0))
    assert events == []
    (command,) = desk.commands(Respond)
    assert command.items[0]["content"] == [{"type": "input_audio", "transcript": "Is this spam?"}]
    assert len(desk.session.conversation) == 0


def test_a_reference_to_what_is_not_yet_in_words_waits_for_them() -> None:
    """Row E15: and for no others."""
    desk = Desk()
    for item_id in ("item_a", "item_b"):
        item = {"id": item_id, "type": "message", "role": "user", "content": [SOUND]}
        desk.send("conversation.item.create", item=item)
    (asked,) = desk.commands(Transcribe)
    reference = [{"type": "item_reference", "id": "item_b"}]
    desk.send("response.create", response={"conversation": "none", "input": reference})
    assert desk.commands(Respond) == []
    desk.engine(Transcribed("item_b", asked.revision, "Yes.", 1.0))
    (command,) = desk.commands(Respond)
    assert [item["content"][0]["transcript"] for item in command.items] == ["Yes."]


def test_the_conversations_response_waits_for_no_sound_of_another() -> None:
    """Row E15: what was given for one response alone is nobody else's."""
    desk = Desk()
    spoken = {"type": "message", "role": "user", "content": [SOUND]}
    desk.send("response.create", response={"conversation": "none", "input": [spoken]})
    desk.send("conversation.item.create", item=MESSAGE)
    desk.send("response.create")
    (command,) = desk.commands(Respond)
    assert [item["content"] for item in command.items] == [MESSAGE["content"]]


def test_words_that_never_come_do_not_hold_a_response_beside_the_conversation() -> None:
    """Row E15, O12."""
    desk = Desk()
    spoken = {"type": "message", "role": "user", "content": [SOUND]}
    desk.send("response.create", response={"conversation": "none", "input": [spoken]})
    deadline = desk.session.next_timer()
    assert deadline is not None
    desk.session.handle_timer(deadline)
    desk.drain()
    (command,) = desk.commands(Respond)
    assert "response.done" in types(desk.finish(command))


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


def test_a_cancel_without_an_id_means_the_conversations_response() -> None:
    """Row E16: a client that interrupts must not stop what runs beside the conversation."""
    desk = Desk()
    aside = desk.respond(conversation="none", input=[])
    assert desk.error("response.cancel")["code"] == "response_cancel_not_active"
    spoken = desk.respond()
    (done,) = desk.send("response.cancel")
    assert done["response"]["id"] == spoken.response_id
    (done,) = desk.send("response.cancel", response_id=aside.response_id)
    assert (done["response"]["id"], done["response"]["conversation_id"]) == (aside.response_id, None)


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


FUNCTIONS = [{"type": "function", "name": "f"}, {"type": "function", "name": "g"}]


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({}, ["f", "g"]),
        ({"parallel_tool_calls": True}, ["f", "g"]),
        ({"parallel_tool_calls": False}, ["f"]),
        ({"tool_choice": "none"}, []),
        ({"tool_choice": "required"}, ["f", "g"]),
        ({"tool_choice": {"type": "function", "name": "g"}}, ["g"]),
    ],
)
@pytest.mark.parametrize("of", ["session", "response"])
def test_a_call_that_was_ruled_out_is_not_told(plan: dict[str, Any], told: list[str], of: str) -> None:
    """Rows E14, G14, G20: models do not all obey, and an app would run the call."""
    desk = Desk(tools=FUNCTIONS, **(plan if of == "session" else {}))
    command = desk.respond(**(plan if of == "response" else {}))
    assert command.parallel_tool_calls is plan.get("parallel_tool_calls")
    of_it = command.response_id, command.generation
    calls = [
        part
        for name in ("f", "g")
        for part in (
            FunctionCallStarted(*of_it, f"call_{name}", name),
            FunctionCallArguments(*of_it, f"call_{name}", '{"a":1}'),
        )
    ]
    events = desk.engine(*calls, ResponseFinished(*of_it))
    assert [e["name"] for e in events if e["type"] == "response.function_call_arguments.done"] == told
    assert [item["name"] for item in events[-1]["response"]["output"]] == told
    ruled_out = [note.title for note in desk.commands(SessionNote) if note.kind == "session"]
    assert len(ruled_out) == 2 - len(told)


def test_a_response_without_a_word_is_still_whole() -> None:
    """Row O12: nothing was made, and there is one `response.done`."""
    desk = Desk()
    events = desk.finish(desk.respond())
    assert types(events) == ["response.done"]
    assert (events[0]["response"]["status"], events[0]["response"]["output"]) == ("completed", [])


def test_cached_tokens_are_part_of_the_input() -> None:
    """Row O19."""
    desk = Desk()
    done = desk.finish(desk.respond(), input_tokens=30, output_tokens=12, cached_tokens=20)[-1]
    details = done["response"]["usage"]["input_token_details"]
    assert (details["text_tokens"], details["cached_tokens"]) == (30, 20)
    assert details["cached_tokens_details"] == {"text_tokens": 20, "audio_tokens": 0, "image_tokens": 0}


def test_no_response_is_begun_while_the_session_ends() -> None:
    desk = Desk()
    desk.respond()
    desk.session.close("the caller hung up", desk.now)
    desk.drain()
    assert desk.error("response.create")["code"] == "session_closing"
