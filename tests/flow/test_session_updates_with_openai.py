"""Item 2: `session.update` by the openai package on a real node (rows E01, E06 to E08, E10, G17)."""

from __future__ import annotations

import copy
from typing import Any

from openai import AsyncOpenAI

from testbed import Node
from testbed.model_session import ModelSession
from testbed.session_objects import EVERYTHING


async def updated(session: ModelSession, **fields: Any) -> dict[str, Any]:
    """Send an update; return the session that it led to."""
    before = len(session.events)
    await session.connection.session.update(session={"type": "realtime", **fields})
    told = await session.wait_for("session.updated", after=before)
    shown: dict[str, Any] = told["session"]
    return shown


async def test_openai_python_changes_a_session_part_by_part(node: Node) -> None:
    seat = node.seat()
    async with (
        AsyncOpenAI(api_key=seat.api_key, base_url=node.base_url, max_retries=0) as client,
        ModelSession(client) as session,
    ):
        whole = copy.deepcopy(EVERYTHING) | {"output_modalities": ["audio"], "model": "another-model"}
        # What the package does not type, and other clients send, is shown too: no frame here may have it.
        del (
            whole["audio"]["input"]["format"]["rate"],
            whole["audio"]["input"]["turn_detection"]["model_version"],
        )
        shown = await updated(session, **whole)
        assert shown["model"] == "gpt-realtime"
        turn_detection = shown["audio"]["input"]["turn_detection"]
        assert (turn_detection["create_response"], turn_detection["interrupt_response"]) == (True, True)
        taken = ("instructions", "tools", "tool_choice", "truncation", "tracing", "reasoning", "include")
        assert {name: shown[name] for name in taken} == {name: whole[name] for name in taken}

        # What is not named stays; what both agents SDKs send about tracing changes nothing.
        after = await updated(
            session, audio={"input": {"turn_detection": {"eagerness": "low"}}}, tracing="auto"
        )
        shown["audio"]["input"]["turn_detection"]["eagerness"] = "low"
        assert after == shown

        await session.connection.response.create()
        await session.wait_for("response.done")
        after = await updated(session, audio={"output": {"voice": "coral"}}, instructions="Be brief.")
        refused = await session.wait_for("error")
        assert refused["error"]["code"] == "cannot_update_voice"
        assert (after["audio"]["output"]["voice"], after["instructions"]) == ({"id": "voice_1"}, "Be brief.")
