"""
A developer's app on openai-agents, unmodified: takes calls by webhook, or with `plain` talks without one.

The webhook is `examples/realtime/twilio_sip` of the SDK in small: verify, accept, attach by `OpenAIRealtimeSIPModel`.
Only the URLs are a node's; the WebSocket's stands in the model's configuration (API row S05).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import agents
import uvicorn
from agents.realtime import (
    OpenAIRealtimeSIPModel,
    RealtimeAgent,
    RealtimeModelSendRawMessage,
    RealtimeRunner,
)
from fastapi import FastAPI, Request, Response
from openai import AsyncOpenAI

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from console import Microphone, TellFaults, guarded, running, tell, tell_versions

KEY, BASE_URL = os.environ["OPENAI_API_KEY"], os.environ["OPENAI_BASE_URL"]
WEBSOCKET_URL = BASE_URL.replace("http", "ws", 1) + "/realtime"


@agents.function_tool(name_override="look_up_opening_hours")
async def look_up(day: str) -> str:
    """Say when we are open."""
    tell("tool ran", day=day)
    return "nine to five"


AGENT = RealtimeAgent(name="Receptionist", instructions="Answer questions about hours.", tools=[look_up])
SESSIONS_END = hasattr(agents.realtime, "RealtimeModelEndOfStreamEvent")
"""Whether a session is over with its WebSocket. Those of 0.6.5 wait for ever: its apps go by the webhook."""
SETTINGS = {
    "turn_detection": {"type": "server_vad", "silence_duration_ms": 300, "interrupt_response": True},
    "input_audio_transcription": {"model": "whisper-1"},
}


async def follow(session: Any) -> None:
    """Tell all that the session yields. Its end is the session's."""
    try:
        async for event in session:
            tell_event(event)
    finally:
        tell("session over")


def tell_event(event: Any) -> None:
    match event.type:
        case "raw_model_event" if event.data.type == "raw_server_event":
            tell("event", event=event.data.data)
        case "raw_model_event" if event.data.type in ("error", "exception"):
            tell("fault", where="the model", message=str(event.data))
        case "error":
            tell("fault", where="the session", message=str(event.error))
        case "tool_end":
            tell("tool end", output=event.output)
        case "audio":
            tell("audio", bytes=len(event.audio.data))
        case "audio_interrupted" | "audio_end" as kind:
            tell(kind)


async def take_call(call_id: str) -> None:
    runner = RealtimeRunner(AGENT, model=OpenAIRealtimeSIPModel())
    session = await runner.run(
        model_config={
            "api_key": KEY,
            "url": f"{WEBSOCKET_URL}?call_id={call_id}",
            "call_id": call_id,
            "initial_model_settings": SETTINGS,
        }
    )
    async with session:
        greet = {"type": "response.create", "other_data": {"response": {"instructions": "Greet the caller."}}}
        await session.model.send_event(RealtimeModelSendRawMessage(message=greet))
        await follow(session)


def make_api(client: AsyncOpenAI) -> FastAPI:
    api, calls = FastAPI(), {}

    @api.post("/webhook")
    async def webhook(request: Request) -> Response:
        event = client.webhooks.unwrap(await request.body(), request.headers)
        tell("webhook", type=event.type, data=event.data.model_dump(mode="json"))
        if event.type == "realtime.call.incoming":
            call_id = event.data.call_id
            payload = await OpenAIRealtimeSIPModel.build_initial_session_payload(AGENT)
            await client.post(
                f"/realtime/calls/{call_id}/accept",
                body=payload.model_dump(mode="json", exclude_none=True),
                cast_to=dict,
            )
            calls[call_id] = asyncio.create_task(guarded(take_call(call_id)))
        elif event.type == "realtime.call.ended" and not SESSIONS_END:
            calls[event.data.call_id].cancel()
        return Response(status_code=200)

    return api


async def talk_without_a_call() -> None:
    """One plain session, spoken in by what `speak` brings, until `hang up`."""
    session = await RealtimeRunner(AGENT).run(
        model_config={
            "api_key": KEY,
            "url": f"{WEBSOCKET_URL}?model=gpt-realtime",
            "initial_model_settings": SETTINGS,
        }
    )
    microphone = Microphone(session.send_audio)
    async with session, running(follow(session), microphone.run()):
        await microphone.speaks_until_hung_up()
    tell("hung up")


async def main() -> None:
    logging.getLogger().addHandler(TellFaults())
    agents.set_tracing_disabled(True)
    tell_versions("openai-agents", "openai", "websockets")
    if sys.argv[1:] == ["plain"]:
        return await talk_without_a_call()
    client = AsyncOpenAI()  # OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_WEBHOOK_SECRET
    webhook_socket = socket.socket(fileno=int(os.environ["WEBHOOK_FD"]))
    server = uvicorn.Server(uvicorn.Config(make_api(client), log_config=None, lifespan="off"))
    return await server.serve(sockets=[webhook_socket])


asyncio.run(main())
