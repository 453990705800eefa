"""Item 3: responses, from what a client may ask of one to how it ends (rows E11 to E17, O03 to O13, O19, O20)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from offhook.realtime.engines.scripted import Call, Reply, Script, Turn
from testbed import DeveloperApp, Node, Phone
from testbed.attended import attended
from testbed.by_hand import Caller, assert_complete, send
from testbed.model_session import ModelSession
from testbed.script import GREETING, LONG, SHORT, TOOL

TEXT = {"type": "realtime", "output_modalities": ["text"]}


def said_by_user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


@pytest.fixture
async def client(node: Node) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=node.seat().api_key, base_url=node.base_url, max_retries=0) as ready:
        yield ready


# A real node, asked with the openai package. What the scripted engine says later waits for the caller's sound.


async def test_update_and_create_back_to_back_are_done_in_order(client: AsyncOpenAI) -> None:
    """Row E13, as openai-agents sends them."""
    async with ModelSession(client) as session:
        await session.connection.session.update(session=TEXT)
        await session.connection.response.create()
        done = (await session.wait_for("response.done"))["response"]
        assert session.types[1:4] == ["session.updated", "response.created", "rate_limits.updated"]
    assert done["output_modalities"] == ["text"]
    assert done["output"][0]["content"] == [{"type": "output_text", "text": GREETING}]


async def test_two_at_once_one_beside_the_conversation_each_cancelled_by_its_id(client: AsyncOpenAI) -> None:
    """Rows E15, E16, O12."""
    async with ModelSession(client) as session:
        connection = session.connection
        await connection.session.update(session=TEXT)
        for text in ("Good morning.", "When are you open?"):
            await connection.conversation.item.create(item=said_by_user(text))
        await connection.response.create()
        called = (await session.wait_for("response.done"))["response"]
        assert [item["name"] for item in called["output"]] == [TOOL]

        before = len(session.events)
        await connection.response.create()
        spoken = (await session.wait_for("response.created", after=before))["response"]
        reference = {"type": "item_reference", "id": called["output"][0]["id"]}
        aside = [said_by_user("Good morning."), said_by_user("When are you open?"), reference]
        await connection.response.create(
            response={"conversation": "none", "metadata": {"topic": "aside"}, "input": aside}
        )
        beside = await session.wait_for(
            "response.created", lambda event: event["response"]["conversation_id"] is None
        )
        assert beside["response"]["metadata"] == {"topic": "aside"}
        await connection.response.create(event_id="one_more")
        refused = (await session.wait_for("error"))["error"]
        assert (refused["code"], refused["event_id"]) == (
            "conversation_already_has_active_response",
            "one_more",
        )
        assert spoken["id"] in refused["message"]

        for cancelled in (beside["response"], spoken):
            await connection.response.cancel(response_id=cancelled["id"])
            mine = cancelled["id"]
            done = await session.wait_for(
                "response.done", lambda event, mine=mine: event["response"]["id"] == mine
            )
            assert done["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        await connection.response.cancel(event_id="too_late")
        late = await session.wait_for("error", lambda event: event["error"]["event_id"] == "too_late")
        assert late["error"]["code"] == "response_cancel_not_active"
    assert len(session.of_type("response.done")) == 3


async def test_nothing_of_a_response_beside_the_conversation_is_in_it(client: AsyncOpenAI) -> None:
    """Row E15."""
    async with ModelSession(client) as session:
        connection = session.connection
        await connection.session.update(session=TEXT)
        await connection.conversation.item.create(item=said_by_user("Good morning."))
        item = (await session.wait_for("conversation.item.done"))["item"]
        for given in ([{"type": "item_reference", "id": item["id"]}], []):
            before = len(session.events)
            await connection.response.create(response={"conversation": "none", "input": given})
            done = (await session.wait_for("response.done", after=before))["response"]
            said = done["output"][0]["content"][0]["text"]
            assert said == (SHORT if given else GREETING)
            own = done["output"][0]["id"]
            await connection.conversation.item.retrieve(item_id=own, event_id=own)
            unknown = await session.wait_for(
                "error", lambda event, own=own: event["error"]["event_id"] == own
            )
            assert unknown["error"]["code"] == "item_retrieve_invalid_item_id"
        assert len(session.of_type("conversation.item.added")) == 1


async def test_a_response_stops_at_max_output_tokens(client: AsyncOpenAI) -> None:
    """Rows E14, O11, O19, O20, G15: for this response alone, then for all."""
    async with ModelSession(client) as session:
        connection = session.connection
        await connection.response.create(response={"max_output_tokens": 1})
        cut = (await session.wait_for("response.done"))["response"]
        assert cut["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
        assert cut["max_output_tokens"] == 1
        before = len(session.events)
        await connection.response.create()
        whole = (await session.wait_for("response.done", after=before))["response"]
        assert (whole["status"], whole["status_details"]) == ("completed", None)
        assert whole["output"][0]["content"][0]["transcript"] == GREETING
        before = len(session.events)
        await connection.session.update(session={"type": "realtime", "max_output_tokens": 2})
        await connection.response.create()
        short = (await session.wait_for("response.done", after=before))["response"]
    assert short["output"][0]["status"] == "incomplete"
    assert short["output"][0]["content"][0]["transcript"] == GREETING.split()[0]
    for response in (cut, whole, short):
        usage = response["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        if response["max_output_tokens"] != "inf":
            assert usage["output_tokens"] <= response["max_output_tokens"]
        assert {
            "text_tokens",
            "audio_tokens",
            "image_tokens",
            "cached_tokens",
            "cached_tokens_details",
        } == set(usage["input_token_details"])
        assert set(usage["output_token_details"]) == {"text_tokens", "audio_tokens"}


async def test_a_response_that_may_call_no_tool_calls_none(client: AsyncOpenAI) -> None:
    """Rows E14, G14."""
    async with ModelSession(client) as session:
        connection = session.connection
        tool = {"type": "function", "name": TOOL, "parameters": {"type": "object"}}
        await connection.session.update(session=TEXT | {"tools": [tool], "parallel_tool_calls": False})
        for text in ("Good morning.", "When are you open?"):
            await connection.conversation.item.create(item=said_by_user(text))
        await connection.response.create(response={"conversation": "none", "tool_choice": "none"})
        kept = (await session.wait_for("response.done"))["response"]
        assert (kept["status"], kept["output"]) == ("completed", [])
        unknown = {"type": "function", "name": "other"}
        await connection.response.create(response={"tool_choice": unknown}, event_id="unknown_tool")
        refused = (await session.wait_for("error"))["error"]
        assert (refused["param"], refused["event_id"]) == ("response.tool_choice.name", "unknown_tool")
    assert session.of_type("session.updated")[-1]["session"]["parallel_tool_calls"] is False


async def test_clear_stops_the_sound_of_an_answer_that_is_already_made(
    app: DeveloperApp, phone: Phone
) -> None:
    """Rows O04, O05, E16, E17: what is made cannot be cancelled, but what is not yet heard can be cleared."""
    async with attended(app, phone) as talk:
        connection = talk.sideband.connection
        for text in ("Good morning.", "When are you open?", "And on other days?"):
            await connection.conversation.item.create(item=said_by_user(text))
        await connection.response.create()
        started = await talk.sideband.wait_for("output_audio_buffer.started")
        await talk.sideband.wait_for("response.done")
        await connection.output_audio_buffer.clear()
        cleared = await talk.sideband.wait_for("output_audio_buffer.cleared")
        assert cleared["response_id"] == started["response_id"]
        truncated = await talk.sideband.wait_for("conversation.item.truncated")
        assert 0 <= truncated["audio_end_ms"] < len(LONG) * 60
        await connection.output_audio_buffer.clear(event_id="again")
        await connection.response.cancel(event_id="nothing")
        error = (await talk.sideband.wait_for("error"))["error"]
        assert (error["event_id"], error["code"]) == ("nothing", "response_cancel_not_active")
        talk.call.hang_up()
        await talk.sideband.wait_closed()
    assert len(talk.sideband.of_type("response.done")) == 1


# The same by hand, where the time of each thing counts.


async def test_each_response_begins_with_its_limits() -> None:
    """Row O13: the caller's turn, a client's wish, two at once, one that fails; none is asked about limits."""
    turn = Turn("Hello there.", (Reply("Hi.", status="failed"),))
    phone = await Caller(Script(greeting="Welcome.", turns=(turn,))).start()
    client, attachment = phone.attach()
    send(attachment, "response.create")
    send(attachment, "response.create", response={"conversation": "none", "input": []})
    phone.wait(1000)
    phone.say()
    phone.wait(1500)
    assert len(client.of("response.created")) == 3
    following = [
        after
        for before, after in zip(client.events, client.events[1:], strict=False)
        if before["type"] == "response.created"
    ]
    assert [event["type"] for event in following] == ["rate_limits.updated"] * 3
    assert all(event["rate_limits"] == [] for event in client.of("rate_limits.updated"))
    assert len(client.of("rate_limits.updated")) == 3
    assert [event["response"]["status"] for event in client.of("response.done")] == [
        "completed",
        "completed",
        "failed",
    ]
    assert_complete(client.events)


STORY = "First we look at this. Then we look at that. Finally we are done with it."


async def test_tool_call_round_trip() -> None:
    """Rows O07, O08, V04, V11."""
    script = Script(
        turns=(
            Turn(
                "What is the weather?",
                (
                    Reply("One moment.", calls=(Call("weather", '{"city":"Rome"}'), Call("clock"))),
                    Reply("It is sunny."),
                ),
            ),
        )
    )
    phone = await Caller(script).start()
    client, attachment = phone.attach()
    phone.say()
    phone.wait(600)
    done = client.of("response.done")[0]["response"]
    assert [item["type"] for item in done["output"]] == ["message", "function_call", "function_call"]
    calls = [
        e["item"] for e in client.of("response.output_item.done") if e["item"]["type"] == "function_call"
    ]
    assert [(c["name"], c["arguments"], c["status"]) for c in calls] == [
        ("weather", '{"city":"Rome"}', "completed"),
        ("clock", "{}", "completed"),
    ]
    arguments = client.of("response.function_call_arguments.done")
    assert [e["name"] for e in arguments] == ["weather", "clock"]
    own = [
        e["type"] for e in client.events if e.get("item_id", e.get("item", {}).get("id")) == calls[0]["id"]
    ]
    assert own == [
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
    ]
    client.take()
    for call in calls:
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"ok":true}'}
        send(attachment, "conversation.item.create", item=output)
    send(attachment, "response.create", event_id="agents_py_response_create_2")
    assert client.types[:5] == ["conversation.item.added", "conversation.item.done"] * 2 + [
        "response.created"
    ]
    assert (
        client.of("response.done")[0]["response"]["output"][0]["content"][0]["transcript"] == "It is sunny."
    )
    # The follow-up is said after what is still being said.
    phone.wait(2000)
    sound = [
        (e["type"], e["response_id"]) for e in client.events if e["type"].startswith("output_audio_buffer")
    ]
    first, second = done["id"], client.of("response.done")[0]["response"]["id"]
    assert sound == [
        ("output_audio_buffer.stopped", first),
        ("output_audio_buffer.started", second),
        ("output_audio_buffer.stopped", second),
    ]


async def test_barge_in_while_the_answer_is_being_made() -> None:
    """Rows O09, O11."""
    script = Script(
        turns=(Turn("Tell me.", (Reply(STORY, sentence_ms=1500),)), Turn("Stop.", (Reply("Okay."),)))
    )
    phone = await Caller(script).start()
    client, _ = phone.attach()
    phone.say()
    phone.wait(500 + 1000)
    client.take()
    phone.say(100)
    assert client.types == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert phone.speaker.queue == b""
    done = client.events[-1]["response"]
    assert done["status"] == "cancelled"
    assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert done["output"][0]["status"] == "incomplete"
    # 80 ms of speech are needed to be sure; all of them were heard.
    heard_ms = client.events[2]["audio_end_ms"]
    assert heard_ms == phone.speaker.played_samples // 8 == pytest.approx(1080, abs=20)
    # 22 characters in 1320 ms: the words whose sound was over by then.
    assert done["output"][0]["content"][0]["transcript"] == "First we look at"
    phone.say(300)
    phone.wait(3000)
    assert client.of("response.done")[-1]["response"]["output"][0]["content"][0]["transcript"] == "Okay."
    assert len(client.of("response.done")) == 2


async def test_barge_in_after_generation_while_it_is_still_played() -> None:
    """Row O09: no second response.done."""
    phone = await Caller(
        Script(turns=(Turn("Tell me.", (Reply(STORY),)), Turn("Stop.", (Reply("Okay."),))))
    ).start()
    client, attachment = phone.attach()
    phone.say()
    phone.wait(500 + 2000)
    assert len(client.of("response.done")) == 1
    item_id = client.of("response.done")[0]["response"]["output"][0]["id"]
    client.take()
    phone.say(100)
    assert client.types == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
    ]
    heard_ms = client.events[2]["audio_end_ms"]
    assert heard_ms == pytest.approx(2080, abs=20)
    # The client does what it always does, and nothing is an error (rows E20, E21).
    client.take()
    send(attachment, "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=9000)
    send(attachment, "conversation.item.retrieve", item_id=item_id)
    while len(client.types) < 2:  # the sound is encoded piece by piece
        await asyncio.sleep(0)
    assert client.types == ["conversation.item.truncated", "conversation.item.retrieved"]
    assert client.events[0]["audio_end_ms"] == heard_ms
    content = client.events[1]["item"]["content"][0]
    assert content["transcript"] == "First we look at this. Then we look"
    # Audio comes in the format that the session names, audio/pcm at 24 kHz.
    assert len(base64.b64decode(content["audio"])) / 48 == pytest.approx(heard_ms, abs=1)


async def test_the_interrupted_answer_that_nobody_heard_is_unsaid() -> None:
    """Two answers wait to be played; the second was never begun."""
    script = Script(
        turns=(Turn("Go.", (Reply(STORY), Reply("More of it."))), Turn("Stop.", (Reply("Okay."),)))
    )
    phone = await Caller(script).start()
    client, attachment = phone.attach()
    phone.say()
    phone.wait(600)
    send(attachment, "response.create")
    second = client.of("response.done")[1]["response"]["output"][0]["id"]
    client.take()
    phone.say(100)
    assert client.types.count("output_audio_buffer.cleared") == 1
    assert client.of("conversation.item.truncated")[1] == {
        "type": "conversation.item.truncated",
        "event_id": client.of("conversation.item.truncated")[1]["event_id"],
        "item_id": second,
        "content_index": 0,
        "audio_end_ms": 0,
    }
    item = phone.session.conversation.get(second)
    assert item is not None
    assert item.transcript == ""


async def test_no_interruption_when_the_app_forbids_it() -> None:
    """Row O10."""
    accept = {"audio": {"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}}}
    script = Script(turns=(Turn("Tell me.", (Reply(STORY, sentence_ms=1500),)),))
    phone = await Caller(script, accept=accept).start()
    client, _ = phone.attach()
    phone.say()
    phone.wait(900)
    client.take()
    phone.say(300)
    phone.wait(700)
    turn = [kind for kind in client.types if not kind.startswith("response.output_audio_transcript")]
    assert turn == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    phone.wait(6000)
    assert [e["response"]["status"] for e in client.of("response.done")] == ["completed"]
    assert "output_audio_buffer.cleared" not in client.types


@pytest.mark.parametrize("status", ["failed", "incomplete"])
async def test_responses_that_end_badly(status: Any) -> None:
    """Rows O11, O20."""
    phone = await Caller(Script(turns=(Turn("Go.", (Reply("I was just", status=status),)),))).start()
    client, _ = phone.attach()
    phone.say()
    phone.wait(1500)
    done = client.of("response.done")[0]["response"]
    assert done["status"] == status
    assert done["output"][0]["status"] == "incomplete"
    if status == "failed":
        assert done["status_details"]["error"]["message"] == "the script says so"
    else:
        assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert_complete(client.events)
