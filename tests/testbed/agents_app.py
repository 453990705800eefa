"""
An app on openai-agents, as its documentation makes one for SIP calls: FastAPI, `OpenAIRealtimeSIPModel`, a runner.

The webhook handler awaits the accept, with `cast_to=dict`, before it answers; a task then attaches with the URL of
this node in the model's configuration, since the SDK does not read `OPENAI_BASE_URL` for its WebSocket (API row S05).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import agents
from agents.realtime import (
    OpenAIRealtimeSIPModel,
    RealtimeAgent,
    RealtimeError,
    RealtimeModelSendRawMessage,
    RealtimeRawModelEvent,
    RealtimeRunner,
    RealtimeSession,
)
from fastapi import FastAPI, Request, Response
from openai import APIStatusError, AsyncOpenAI

from .developer import serve
from .node import Node, Seat
from .protocol import Strictness, validate
from .script import TOOL
from .waiting import PATIENCE_S

__all__ = ["AgentsApp", "agents_app", "raw_event"]


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

    async def raw(self, event_type: str, timeout: float = PATIENCE_S) -> dict[str, Any]:
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


@asynccontextmanager
async def agents_app(node: Node, records: Sequence[logging.LogRecord]) -> AsyncIterator[AgentsApp]:
    """
    The app, listening. Afterwards: nothing that the SDK found wrong may have come.

    `records` is what was logged in the test's process, where the SDK runs too.
    """
    agents.set_tracing_disabled(True)
    app = AgentsApp(node, node.seat())
    server, task = await serve(app.api, app.seat)
    try:
        yield app
    finally:
        server.should_exit = True
        await task
        await app.close()
    assert not [event for event in app.seen if isinstance(event, RealtimeError)], (
        "the session reported errors"
    )
    faults = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
    assert not [fault for fault in faults if "ping" not in fault], f"the SDK logged faults: {faults}"
    for event in app.seen:
        if (data := raw_event(event)) is not None:
            validate(json.dumps(data).encode(), Strictness())
