"""
A voice agent on LiveKit Agents, unmodified: `AgentSession` with the OpenAI Realtime model, its `base_url` a node's.

It needs no LiveKit server: a microphone and a loudspeaker of its own are the session's ends, not a room's tracks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import Agent, AgentSession, function_tool
from livekit.agents.voice import io
from livekit.plugins import openai
from openai.types.realtime.realtime_audio_input_turn_detection import ServerVad

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from console import Microphone, TellFaults, running, tell, tell_versions

RATE = 24000


class Ear(io.AudioInput):
    """What is said to the agent."""

    def __init__(self) -> None:
        super().__init__(label="ear")
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.microphone = Microphone(self._frames.put, RATE)

    async def __anext__(self) -> rtc.AudioFrame:
        pcm = await self._frames.get()
        return rtc.AudioFrame(pcm, RATE, 1, len(pcm) // 2)


class Loudspeaker(io.AudioOutput):
    """Plays in real time into nowhere, and tells how much it has played: what was heard is cut at that."""

    def __init__(self) -> None:
        super().__init__(
            label="loudspeaker", capabilities=io.AudioOutputCapabilities(pause=False), sample_rate=RATE
        )
        self._began = self._seconds = 0.0
        self._over: asyncio.TimerHandle | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self._seconds:
            self._began = time.monotonic()
            self.on_playback_started(created_at=time.time())
        self._seconds += frame.duration
        tell("audio", bytes=len(frame.data) * 2)

    def flush(self) -> None:
        super().flush()
        if self._seconds and self._over is None:
            rest = self._began + self._seconds - time.monotonic()
            self._over = asyncio.get_running_loop().call_later(max(0.0, rest), self._finish, False)

    def clear_buffer(self) -> None:
        if self._seconds:
            self._finish(True)

    def _finish(self, interrupted: bool) -> None:
        played = min(self._seconds, time.monotonic() - self._began)
        if self._over is not None:
            self._over.cancel()
        self._over, self._seconds = None, 0.0
        tell("played", seconds=round(played, 2), interrupted=interrupted)
        self.on_playback_finished(playback_position=played, interrupted=interrupted)


class ToldModel(openai.realtime.RealtimeModel):
    """The plugin's model, of which each session tells the events that it gets."""

    def session(self, **options: Any) -> Any:
        session = super().session(**options)
        session.on("openai_server_event_received", lambda event: tell("event", event=event))
        session.on(
            "openai_client_event_queued",
            lambda event: None if "audio" in event else tell("sent", type=event["type"]),
        )
        return session


class Receptionist(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="Answer questions about hours.")

    async def on_enter(self) -> None:
        self.session.generate_reply(instructions="Greet the caller.")

    @function_tool
    async def look_up_opening_hours(self, day: str) -> str:
        """Say when we are open.

        Args:
            day: The day of the week.
        """
        tell("tool ran", day=day)
        return "nine to five"


async def main() -> None:
    logging.getLogger().addHandler(TellFaults())
    tell_versions("livekit-agents", "livekit-plugins-openai", "openai")
    model = ToldModel(
        base_url=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        turn_detection=ServerVad(type="server_vad", silence_duration_ms=300),
    )
    turn_handling = {"turn_detection": "realtime_llm", "interruption": {"resume_false_interruption": False}}
    session, ear = AgentSession(llm=model, vad=None, turn_handling=turn_handling), Ear()
    session.input.audio, session.output.audio = ear, Loudspeaker()
    session.on("error", lambda event: tell("fault", where="the session", message=str(event.error)))
    session.on(
        "conversation_item_added",
        lambda event: (
            event.item.type == "message"
            and tell("in the history", role=event.item.role, text=event.item.text_content)
        ),
    )
    session.on("user_input_transcribed", lambda event: tell("transcribed", text=event.transcript))
    async with running(ear.microphone.run()):
        await session.start(Receptionist(), record=False)
        await ear.microphone.speaks_until_hung_up()
        await session.aclose()
    await model.aclose()
    tell("hung up")


asyncio.run(main())
