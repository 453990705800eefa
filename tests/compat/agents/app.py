"""
A developer's app on openai-agents, unmodified: takes calls by webhook, or with `plain` or `by hand` talks without one.

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
from console import Came, Microphone, TellFaults, guarded, running, tell, tell_versions

KEY, BASE_URL = os.environ["OPENAI_API_KEY"], os.environ["OPENAI_BASE_URL"]
WEBSOCKET_URL = BASE_URL.replace("http", "ws", 1) + "/realtime"

LOUD = b"\x10\x27\xf0\xd8" * 12000


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


async def follow(session: Any, came: Came | None = None) -> None:
    """Tell all that the session yields. Its end is the session's."""
    try:
        async for event in session:
            tell_event(event)
            if came and event.type == "raw_model_event" and event.data.type == "raw_server_event":
                came.add(event.data.data["type"])
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
        await ask_for_response(session, instructions="Greet the caller.")
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


async def talk_by_hand() -> None:
    """A session whose turns the app ends, which is interrupted by the app, and which another agent takes over."""
    sales = RealtimeAgent(name="Sales", instructions="Sell.", handoff_description="Knows the prices.")
    session = await RealtimeRunner(AGENT.clone(handoffs=[sales])).run(
        model_config={
            "api_key": KEY,
            "url": f"{WEBSOCKET_URL}?model=gpt-realtime",
            "initial_model_settings": {
                "modalities": ["audio"],
                "voice": "ash",
                "speed": 1.1,
                "input_audio_format": "pcm16",
                "output_audio_format": "pcm16",
                "input_audio_noise_reduction": {"type": "near_field"},
                "input_audio_transcription": {"model": "gpt-4o-mini-transcribe"},
                "turn_detection": None,
                "tool_choice": "auto",
                "tracing": "auto",
            },
        }
    )
    came, microphone = Came(), Microphone(session.send_audio)
    async with session, running(follow(session, came), microphone.run()):
        # The second is the tracing's, which the SDK asks for once it has seen the session.
        await came.until("session.updated", 2)
        await session.send_message("Hello you.")
        await came.until("response.done", 1)
        microphone.speak(LOUD)
        await microphone.silent()
        await session.model.send_event(
            RealtimeModelSendRawMessage(message={"type": "input_audio_buffer.commit"})
        )
        await came.until("input_audio_buffer.committed", 1)
        await ask_for_response(session)
        # The call of a tool, and its outcome, of which the second sentence comes some seconds later.
        await came.until("response.created", 3)
        await came.until("response.output_audio_transcript.delta", 2)
        await came.until("response.output_audio.delta", 3)
        await session.interrupt()
        await came.until("response.done", 3)
        await session.update_agent(sales)
        await came.until("session.updated", 3)
        await ask_for_response(session, conversation="none", output_modalities=["text"], input=[])
        await came.until("response.done", 4)
    tell("hung up")


async def ask_for_response(session: Any, **response: Any) -> None:
    message = {"type": "response.create", "other_data": {"response": response}}
    await session.model.send_event(RealtimeModelSendRawMessage(message=message))


async def main() -> None:
    logging.getLogger().addHandler(TellFaults())
    agents.set_tracing_disabled(True)
    tell_versions("openai-agents", "openai", "websockets")
    if sys.argv[1:] == ["plain"]:
        return await talk_without_a_call()
    if sys.argv[1:] == ["by hand"]:
        return await talk_by_hand()
    client = AsyncOpenAI()  # OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_WEBHOOK_SECRET
    webhook_socket = socket.socket(fileno=int(os.environ["WEBHOOK_FD"]))
    server = uvicorn.Server(uvicorn.Config(make_api(client), log_config=None, lifespan="off"))
    return await server.serve(sockets=[webhook_socket])


asyncio.run(main())
