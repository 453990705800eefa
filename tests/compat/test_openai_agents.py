"""openai-agents' way with SIP calls, after its documented behaviour (`testbed/agents_app.py`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents.realtime import RealtimeToolEnd

from testbed import Node, Phone, PhoneCall
from testbed import agents_app as testbed_app
from testbed.agents_app import AgentsApp
from testbed.script import TOOL, TOOL_ARGUMENTS


@pytest.fixture
async def agents_app(node: Node, caplog: pytest.LogCaptureFixture) -> AsyncIterator[AgentsApp]:
    async with testbed_app.agents_app(node, caplog.records) as app:
        yield app


async def _speak(app: AgentsApp, call: PhoneCall) -> dict[str, Any]:
    """Say something; return the response that follows."""
    call.speak()
    return await app.raw("response.done")


async def test_the_agent_answers_calls_its_tool_and_goes_on(agents_app: AgentsApp, node: Node) -> None:
    async with Phone(node) as phone:
        call = await phone.dial(agents_app.seat.project)
        await call.answered()

        created = await agents_app.raw("session.created")
        assert [tool["name"] for tool in created["session"]["tools"]] == [TOOL]
        updated = await agents_app.raw("session.updated")
        assert updated["session"]["instructions"] == "Answer questions about opening hours."
        assert updated["session"]["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
        assert (await agents_app.raw("response.done"))["response"]["status"] == "completed"
        await agents_app.raw("output_audio_buffer.stopped")
        assert call.loud_ms() > 300

        assert (await _speak(agents_app, call))["response"]["status"] == "completed"
        await agents_app.raw("output_audio_buffer.stopped")
        asked = await _speak(agents_app, call)
        assert [item["type"] for item in asked["response"]["output"]] == ["function_call"]

        # The SDK runs the tool, sends its output, and asks for another response by itself.
        output = await agents_app.raw("conversation.item.done")
        assert (output["item"]["type"], output["item"]["output"]) == ("function_call_output", "nine to five")
        follow_up = await agents_app.raw("response.created")
        await agents_app.raw("output_audio_buffer.started")
        assert agents_app.tool_calls == [json.loads(TOOL_ARGUMENTS)["day"]]
        assert [event.output for event in agents_app.seen if isinstance(event, RealtimeToolEnd)] == [
            "nine to five"
        ]

        # Speaking over the answer: the SDK must take the server's truncation.
        await call.hears_sound(300)
        call.speak()
        await agents_app.raw("conversation.item.truncated")
        cancelled = await agents_app.raw("response.done")
        assert cancelled["response"]["id"] == follow_up["response"]["id"]
        assert cancelled["response"]["status"] == "cancelled"

        call.hang_up()
        await asyncio.wait_for(agents_app.ended.wait(), 15)
