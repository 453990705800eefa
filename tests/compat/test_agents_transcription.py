"""openai-agents' streamed speech to text, unmodified: a transcription session by URL alone (API rows S03, G01)."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from agents.voice import StreamedAudioInput, STTModelSettings
from agents.voice.models.openai_stt import OpenAISTTModel
from openai import AsyncOpenAI

from testbed import Node
from testbed.model_session import LOUD, QUIET
from testbed.script import SCRIPT
from testbed.waiting import PATIENCE_S

HEARD = [turn["hears"] for turn in SCRIPT["turns"]]
ONE_TURN = np.frombuffer(LOUD + QUIET, "<i2")
FRAME = 480


@pytest.mark.parametrize(
    ("silence_ms", "heard"),
    [
        # Nothing ends the turn but the end of the sound, at which the client commits.
        (5000, HEARD[:1]),
        # Both turns end by voice. The client commits the silence that is left, too, and the script has words for it.
        (300, HEARD[:3]),
    ],
)
async def test_streamed_speech_becomes_words(node: Node, silence_ms: int, heard: list[str]) -> None:
    detection = {"type": "server_vad", "silence_duration_ms": silence_ms}
    async with AsyncOpenAI(api_key=node.seats[0].api_key, base_url=node.base_url, max_retries=0) as client:
        sound = StreamedAudioInput()
        session = await OpenAISTTModel("gpt-4o-transcribe", client).create_session(
            sound,
            STTModelSettings(language="en", prompt="Opening hours.", turn_detection=detection),
            trace_include_sensitive_data=False,
            trace_include_sensitive_audio_data=False,
        )
        for _ in range(2):
            for start in range(0, len(ONE_TURN), FRAME):
                await sound.add_audio(ONE_TURN[start : start + FRAME])
        await sound.add_audio(None)
        async with asyncio.timeout(PATIENCE_S):
            words = [transcript async for transcript in session.transcribe_turns()]
        await session.close()
    assert words == heard
