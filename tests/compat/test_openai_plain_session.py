"""openai-python, unmodified, in a session without a call: `client.realtime.connect(model=...)` (API rows S03, X04)."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from testbed import Node
from testbed.model_session import LOUD, ModelSession
from testbed.script import GREETING, SHORT, TOOL, TOOL_ARGUMENTS
from testbed.sideband import Event


@pytest.fixture
async def client(node: Node) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=node.seats[0].api_key, base_url=node.base_url, max_retries=0) as ready:
        yield ready


async def test_a_text_turn(client: AsyncOpenAI) -> None:
    async with ModelSession(client) as session:
        connection = session.connection
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Good morning."}],
            }
        )
        await connection.response.create()
        done = await session.wait_for("response.done")
    assert done["response"]["output"][0]["content"][0]["text"].strip() == SHORT
    assert session.sound() == b""


async def test_an_audio_turn_and_a_function_call(client: AsyncOpenAI) -> None:
    async with ModelSession(client) as session:
        connection = session.connection
        await connection.session.update(
            session={
                "type": "realtime",
                "instructions": "Be brief.",
                "audio": {"input": {"transcription": {"model": "whisper-1"}}},
                "tools": [{"type": "function", "name": TOOL, "parameters": {"type": "object"}}],
            }
        )
        await session.speak()
        said = await session.wait_for("response.output_audio_transcript.done")
        assert said["transcript"] == SHORT
        await session.wait_for("response.done")
        assert len(session.sound()) == len(SHORT) * 60 * 48

        after = len(session.events)
        await session.speak()
        asked = await session.wait_for("response.function_call_arguments.done", after=after)
        assert (asked["name"], asked["arguments"]) == (TOOL, TOOL_ARGUMENTS)
        await session.wait_for("response.done", after=after)
        after = len(session.events)
        await connection.conversation.item.create(
            item={"type": "function_call_output", "call_id": asked["call_id"], "output": '{"opens":"nine"}'}
        )
        await connection.response.create()
        first = await session.wait_for("response.output_audio.delta", after=after)

        # The caller speaks while the answer is being made: it ends, and the client says how much was heard.
        await session.speak()
        done = await session.wait_for("response.done", after=after)
        assert done["response"]["status_details"]["reason"] == "turn_detected"
        await connection.conversation.item.truncate(
            item_id=first["item_id"], content_index=0, audio_end_ms=400
        )
        truncated = await session.wait_for("conversation.item.truncated")
        assert truncated["audio_end_ms"] == 400
        await connection.conversation.item.retrieve(item_id=first["item_id"])
        item = (await session.wait_for("conversation.item.retrieved"))["item"]
        assert len(base64.b64decode(item["content"][0]["audio"])) == 400 * 48
    heard = session.of_type("conversation.item.input_audio_transcription.completed")
    assert [event["transcript"] for event in heard[:2]] == ["Good morning.", "When are you open?"]


async def test_push_to_talk(client: AsyncOpenAI) -> None:
    async with ModelSession(client) as session:
        connection = session.connection
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        )
        await connection.input_audio_buffer.append(audio=base64.b64encode(LOUD).decode())
        await connection.input_audio_buffer.clear()
        await session.wait_for("input_audio_buffer.cleared")
        await connection.input_audio_buffer.commit(event_id="too_early")
        error = (await session.wait_for("error"))["error"]
        assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "too_early")
        await connection.input_audio_buffer.append(audio=base64.b64encode(LOUD).decode())
        await connection.input_audio_buffer.commit()
        item = (await session.wait_for("conversation.item.done"))["item"]
        assert "response.created" not in session.types
        await connection.conversation.item.retrieve(item_id=item["id"])
        kept = (await session.wait_for("conversation.item.retrieved"))["item"]["content"][0]["audio"]
        assert base64.b64decode(kept) == LOUD
        await connection.response.create()
        assert (await session.wait_for("response.done"))["response"]["status"] == "completed"


async def test_a_greeting_in_the_telephones_format(client: AsyncOpenAI) -> None:
    pcmu: Any = {"format": {"type": "audio/pcmu"}}
    async with ModelSession(client) as session:
        connection = session.connection
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": pcmu, "output": pcmu}}
        )
        updated = await session.wait_for("session.updated")
        await connection.response.create()
        await session.wait_for("response.done")
    assert updated["session"]["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    assert len(session.sound()) == len(GREETING) * 60 * 8


async def test_what_is_for_calls_only_is_refused_by_name(client: AsyncOpenAI) -> None:
    async with ModelSession(client) as session:
        await session.connection.output_audio_buffer.clear(event_id="clear_1")
        error: Event = (await session.wait_for("error"))["error"]
    assert (error["code"], error["event_id"]) == ("unsupported_event", "clear_1")
    assert "conversation.item.truncate" in error["message"]
