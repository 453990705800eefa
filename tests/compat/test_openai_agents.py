"""
openai-agents' way with SIP calls, after its documented behaviour: FastAPI, `OpenAIRealtimeSIPModel`, a runner.

The webhook handler awaits the accept, with `cast_to=dict`, before it answers; a task then attaches with the URL of
this node in the model's configuration, since the SDK does not read `OPENAI_BASE_URL` for its WebSocket (API row S05).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import agents
import pytest
from agents.realtime import (
    OpenAIRealtimeSIPModel,
    RealtimeAgent,
    RealtimeError,
    RealtimeModelSendRawMessage,
    RealtimeRawModelEvent,
    RealtimeRunner,
    RealtimeSession,
    RealtimeToolEnd,
)
from fastapi import FastAPI, Request, Response
from openai import APIStatusError, AsyncOpenAI

from testbed import Node, Phone, PhoneCall, Seat, Strictness
from testbed.developer import serve
from testbed.protocol import validate
from testbed.script import TOOL, TOOL_ARGUMENTS


class AgentsApp:
    """The developer's app. `events` is what its session yields, for the test to wait on."""

    def __init__(self, node: Node, seat: Seat) -> None:
        self.node, self.seat = node, seat
        self.client = AsyncOpenAI(api_key=seat.api_key, webhook_secret=seat.secret, base_url=node.base_url)
        self.tool_calls: list[str] = []
        self.seen: list[Any] = []
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.session: RealtimeSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.agent = RealtimeAgent(
            name="Receptionist",
            instructions="Answer questions about opening hours.",
            tools=[self._make_tool()],
        )
        self.api = FastAPI()
        self.api.post("/webhook")(self.webhook)

    def _make_tool(self) -> Any:
        @agents.function_tool(name_override=TOOL)
        async def look_up(day: str) -> str:
            """Say when we are open.

            Args:
                day: The day of the week.
            """
            self.tool_calls.append(day)
            return "nine to five"

        return look_up

    async def webhook(self, request: Request) -> Response:
        event: Any = self.client.webhooks.unwrap(await request.body(), request.headers)
        if event.type == "realtime.call.incoming":
            await self.accept(event.data.call_id)
            task = asyncio.create_task(self.observe(event.data.call_id))
            self._tasks.add(task)
        return Response(status_code=200)

    async def accept(self, call_id: str) -> None:
        payload = await OpenAIRealtimeSIPModel.build_initial_session_payload(
            self.agent, overrides={"turn_detection": {"type": "server_vad", "silence_duration_ms": 300}}
        )
        try:
            await self.client.post(
                f"/realtime/calls/{call_id}/accept",
                body=payload.model_dump(mode="json", exclude_none=True),
                cast_to=dict,
            )
        except APIStatusError as error:
            if error.status_code != 404:  # the caller hung up
                raise

    async def observe(self, call_id: str) -> None:
        runner = RealtimeRunner(self.agent, model=OpenAIRealtimeSIPModel())
        session = await runner.run(
            model_config={
                "api_key": self.seat.api_key,
                "call_id": call_id,
                "url": f"{self.node.base_url.replace('http', 'ws', 1)}/realtime?call_id={call_id}",
                "initial_model_settings": {
                    "turn_detection": {"type": "semantic_vad", "interrupt_response": True}
                },
            }
        )
        try:
            async with session:
                self.session = session
                await session.model.send_event(
                    RealtimeModelSendRawMessage(
                        message={
                            "type": "response.create",
                            "other_data": {"response": {"instructions": "Greet the caller."}},
                        }
                    )
                )
                async for event in session:
                    self.seen.append(event)
                    self.events.put_nowait(event)
        finally:
            self.ended.set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.close()

    async def raw(self, event_type: str, timeout: float = 6.0) -> dict[str, Any]:
        """Return the next server event of a type, as it came."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    event = await self.events.get()
                    data = raw_event(event)
                    if data is not None and data["type"] == event_type:
                        return data
        except TimeoutError:
            came = [data["type"] for data in map(raw_event, self.seen) if data]
            raise AssertionError(f"no {event_type} within {timeout} s; came: {came}") from None


def raw_event(event: Any) -> dict[str, Any] | None:
    if isinstance(event, RealtimeRawModelEvent) and event.data.type == "raw_server_event":
        data: dict[str, Any] = event.data.data
        return data
    return None


@pytest.fixture
async def agents_app(node: Node, caplog: pytest.LogCaptureFixture) -> AsyncIterator[AgentsApp]:
    """The app, listening. Afterwards: nothing that the SDK found wrong may have come."""
    agents.set_tracing_disabled(True)
    app = AgentsApp(node, node.seat())
    server, task = await serve(app.api, app.seat)
    yield app
    server.should_exit = True
    await task
    await app.close()
    assert not [event for event in app.seen if isinstance(event, RealtimeError)], (
        "the session reported errors"
    )
    faults = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [fault for fault in faults if "ping" not in fault], "the SDK logged faults"
    for event in app.seen:
        if (data := raw_event(event)) is not None:
            validate(json.dumps(data).encode(), Strictness())


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
        await asyncio.wait_for(agents_app.ended.wait(), 5)
