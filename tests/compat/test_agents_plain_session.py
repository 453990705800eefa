"""openai-agents, unmodified, in a session without a call: its WebSocket model with the URL of a node (row S03)."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import agents
import pytest
from agents.realtime import (
    RealtimeAgent,
    RealtimeAudio,
    RealtimeAudioInterrupted,
    RealtimeError,
    RealtimeRunner,
    RealtimeToolEnd,
)

from offhook.audio import tones
from testbed import Node
from testbed.agents_app import raw_event
from testbed.protocol import Strictness, check_order, validate
from testbed.script import SHORT, TOOL, TOOL_ARGUMENTS

LOUD = tones.tone(300.0, 500, level=0.3, rate=24000).astype("<i2").tobytes()
QUIET = b"\0\0" * 24 * 900


class Listener:
    """What the agent's session yields, kept and waited for."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.seen: list[Any] = []
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for event in self.session:
            async with self._changed:
                self.seen.append(event)
                self._changed.notify_all()

    @property
    def raw(self) -> list[dict[str, Any]]:
        return [data for data in map(raw_event, self.seen) if data is not None]

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [event for event in self.raw if event["type"] == kind]

        try:
            async with asyncio.timeout(15), self._changed:
                await self._changed.wait_for(lambda: len(found()) >= count)
        except TimeoutError:
            raise AssertionError(f"no {kind}; came: {[event['type'] for event in self.raw]}") from None
        return found()[count - 1]

    async def speak(self) -> None:
        for start in range(0, len(LOUD + QUIET), 4800):
            await self.session.send_audio((LOUD + QUIET)[start : start + 4800])

    def stop(self) -> None:
        self._task.cancel()


async def test_an_agent_talks_calls_its_tool_and_is_interrupted(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    agents.set_tracing_disabled(True)
    called: list[str] = []

    @agents.function_tool(name_override=TOOL)
    async def look_up(day: str) -> str:
        """Say when we are open."""
        called.append(day)
        return "nine to five"

    agent = RealtimeAgent(name="Receptionist", instructions="Be brief.", tools=[look_up])
    session = await RealtimeRunner(agent).run(
        model_config={
            "api_key": node.seats[0].api_key,
            "url": f"{node.base_url.replace('http', 'ws', 1)}/realtime?model=gpt-realtime",
            "initial_model_settings": {
                "turn_detection": {"type": "server_vad", "interrupt_response": True},
                "input_audio_transcription": {"model": "whisper-1"},
            },
        }
    )
    with caplog.at_level(logging.WARNING, "openai.agents"):
        async with session:
            listener = Listener(session)
            await listener.speak()
            assert (await listener.until("response.done"))["response"]["status"] == "completed"
            said = [
                event for event in listener.raw if event["type"] == "response.output_audio_transcript.done"
            ]
            assert said[0]["transcript"] == SHORT
            played = sum(len(event.audio.data) for event in listener.seen if isinstance(event, RealtimeAudio))
            assert played == len(SHORT) * 60 * 48

            await listener.speak()
            await listener.until("response.created", 3)
            assert called == [json.loads(TOOL_ARGUMENTS)["day"]]
            sounds = [event["type"] for event in listener.raw].count("response.output_audio.delta")
            await listener.until("response.output_audio.delta", sounds + 1)
            await listener.speak()
            done = await listener.until("response.done", 3)
            assert done["response"]["status_details"]["reason"] == "turn_detected"
            await listener.until("conversation.item.truncated")
            await listener.until("response.done", 4)
            listener.stop()
    check_order([event for event in listener.raw if event["type"] != "error"], embedded=True)
    for event in listener.raw:
        validate(json.dumps(event).encode(), Strictness(audio=True))
    assert not [event for event in listener.seen if isinstance(event, RealtimeError)]
    assert [event for event in listener.seen if isinstance(event, RealtimeToolEnd)]
    assert [event for event in listener.seen if isinstance(event, RealtimeAudioInterrupted)]
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("openai.agents")]


async def test_headers_of_ones_own_carry_the_key(node: Node) -> None:
    """`headers` take the place of the SDK's own, of `Authorization` too: so it speaks to Azure (row S06)."""
    agents.set_tracing_disabled(True)
    base = node.base_url.replace("http", "ws", 1).removesuffix("/v1")
    session = await RealtimeRunner(RealtimeAgent(name="Receptionist", instructions="Be brief.")).run(
        model_config={
            "headers": {"api-key": node.seats[0].api_key},
            "url": f"{base}/openai/v1/realtime?model=our-deployment",
        }
    )
    async with session:
        listener = Listener(session)
        assert (await listener.until("session.created"))["session"]["model"] == "our-deployment"
        assert (await listener.until("session.updated"))["session"]["instructions"] == "Be brief."
        listener.stop()
    assert not [event for event in listener.seen if isinstance(event, RealtimeError)]
