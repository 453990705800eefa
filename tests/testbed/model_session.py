"""A session without a call, opened with the openai package; the test is its microphone and its loudspeaker."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Self

from openai import AsyncOpenAI

from offhook.audio import tones

from .protocol import Strictness, check_order
from .sideband import Sideband

__all__ = ["LOUD", "ModelSession"]

LOUD = tones.tone(300.0, 500, level=0.3, rate=24000).astype("<i2").tobytes()
QUIET = b"\0\0" * 24 * 700
FRAME = 960


class ModelSession(Sideband):
    """`client.realtime.connect(model=...)`; every frame is judged as a sideband's is, and the order at the end."""

    def __init__(self, client: AsyncOpenAI, model: str = "gpt-realtime", **query: str) -> None:
        super().__init__(client, "", model=model)
        self._strictness = Strictness(audio=True)
        self._query |= query

    async def __aenter__(self) -> Self:
        self.connection = await self._stack.enter_async_context(
            self._client.realtime.connect(model=self._model, extra_query=self._query)
        )
        self._reader = asyncio.create_task(self._read())
        await self.wait_for("session.created")
        return self

    async def __aexit__(self, *about: Any) -> None:
        await super().__aexit__(*about)
        check_order(self.events, embedded=True)
        assert not [kind for kind in self.types if kind.startswith("output_audio_buffer.")]

    async def speak(self) -> None:
        await self.append(LOUD + QUIET)

    async def append(self, audio: bytes, frame: int = FRAME) -> None:
        for start in range(0, len(audio), frame):
            piece = base64.b64encode(audio[start : start + frame]).decode()
            await self.connection.input_audio_buffer.append(audio=piece)

    def sound(self) -> bytes:
        return b"".join(base64.b64decode(e["delta"]) for e in self.of_type("response.output_audio.delta"))
