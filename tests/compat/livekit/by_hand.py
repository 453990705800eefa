"""
The plugin's session without `AgentSession`: turns that the client ends, a history of its own, and a new connection.

All this is what `AgentSession` asks of it in rarer hours.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import function_tool, llm
from livekit.plugins import openai

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from console import TellFaults, tell, tell_versions

RATE = 24000
LOUD = b"\x10\x27\xf0\xd8" * (RATE // 2)
CONNECTION_S = 10.0
"Much longer than the talk lasts, which is not to be cut."


@function_tool
async def look_up_opening_hours(day: str) -> str:
    """Say when we are open."""
    raise AssertionError("nobody runs it here")


def make_history() -> llm.ChatContext:
    history = llm.ChatContext.empty()
    history.add_message(role="system", content="You know the opening hours.")
    history.add_message(role="user", content="I am Zoë.")
    history.add_message(role="assistant", content="Hello Zoë.")
    call = {"call_id": "call_1", "name": "look_up_opening_hours"}
    history.items.append(llm.FunctionCall(**call, arguments='{"day":"sunday"}'))
    history.items.append(llm.FunctionCallOutput(**call, output="closed", is_error=False))
    return history


async def generated(asked: asyncio.Future[llm.GenerationCreatedEvent]) -> str:
    """Take in a whole reply; tell it, and return its message's id."""
    generation, message_id, texts, samples = await asked, "", [], 0
    async for message in generation.message_stream:
        message_id = message.message_id
        texts += [text async for text in message.text_stream]
        samples += sum([frame.samples_per_channel async for frame in message.audio_stream])
    calls = [call.name async for call in generation.function_stream]
    tell("generated", text="".join(texts), samples=samples, calls=calls)
    return message_id


async def say(session: Any, rate: int = RATE) -> asyncio.Future[llm.GenerationCreatedEvent]:
    session.push_audio(rtc.AudioFrame(LOUD, rate, 1, len(LOUD) // 2))
    session.commit_audio()
    return session.generate_reply()


async def talk(session: Any) -> None:
    await session.update_instructions("Be brief.")
    await session.update_tools([look_up_opening_hours])
    await session.update_chat_ctx(make_history())
    first = await generated(session.generate_reply(instructions="Greet the caller.", tool_choice="none"))
    await generated(await say(session))
    # Nothing of it was heard: then it is deleted.
    session.truncate(message_id=first, modalities=["audio", "text"], audio_end_ms=0)
    session.update_options(tool_choice="required", speed=1.0)
    session.clear_audio()
    await generated(await say(session, 48000))
    shorter = session.chat_ctx.copy()
    del shorter.items[1]
    await session.update_chat_ctx(shorter)
    session.update_options(tool_choice="auto", max_response_output_tokens=100)
    await generated(await say(session))


async def main() -> None:
    logging.getLogger().addHandler(TellFaults())
    tell_versions("livekit-agents", "livekit-plugins-openai", "openai")
    model = openai.realtime.RealtimeModel(  # OPENAI_API_KEY, OPENAI_BASE_URL
        turn_detection=None,
        tracing="auto",
        truncation="auto",
        input_audio_noise_reduction="near_field",
        speed=1.2,
        max_session_duration=CONNECTION_S,
    )
    session, connected_again = model.session(), asyncio.Event()
    session.on("openai_server_event_received", lambda event: tell("event", event=event))
    session.on("error", lambda event: tell("fault", where="the session", message=str(event.error)))
    session.on("session_reconnected", lambda event: connected_again.set())
    await talk(session)
    before = [item.id for item in session.chat_ctx.items]
    connected_again.clear()
    await connected_again.wait()
    tell("connected again")
    await generated(session.generate_reply())
    after = [item.id for item in session.chat_ctx.items]
    tell("history", before=before, after=after)
    await session.aclose()
    await model.aclose()
    tell("hung up")


asyncio.run(main())
