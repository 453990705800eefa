"""
A model behind the mock upstream: it hears the caller by the level of what was appended, and says what a script says.

Turns are taken as the published rules have it (rows O02 to O12): who speaks is decided from the sound that came, in its
own time, never by a timer. The script is that of the scripted engine: a greeting, and for each utterance of the caller
what is `heard` and the replies to it, the first by itself, the others when the app asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from offhook.audio import g711, tones

from .upstream import Event, UpstreamSession, new_id

__all__ = ["CHARACTER_MS", "UpstreamModel", "sound_ms"]

CHARACTER_MS = 20
LOUD_DB = -35.0
ONSET_MS = 60
"Sound of this length is speech."
PIECE_MS = 200
"What one delta holds."
AHEAD = 4
"How much faster than it is spoken the sound is made."
USAGE = {"type": "duration", "seconds": 1.0}

_FRAME = 160


def sound_ms(text: str) -> int:
    """Return how long a text sounds; silence between words does not count."""
    return CHARACTER_MS * len(text)


class UpstreamModel:
    """Serves one session. Use as an async context manager."""

    def __init__(self, session: UpstreamSession, script: Mapping[str, Any]) -> None:
        self.cancelled: list[str] = []
        "Items whose making was cut off."
        self._session = session
        self._script = script
        self._taken = 0
        self._pending = b""
        self._heard_ms = self._loud_ms = self._quiet_ms = 0
        self._speaking: str | None = None
        "The id of the item that the caller is saying."
        self._utterances = self._replies = 0
        self._making: asyncio.Task[None] | None = None
        self._stop = False
        "Whether what is being made is not wanted any more."
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> UpstreamModel:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        tasks = [self._task, *([self._making] if self._making else [])]
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception) and error is None and self._session.closed is None:
                raise ended

    async def _run(self) -> None:
        session = self._session
        while session.closed is None:
            await session.until(
                lambda: len(session.received) > self._taken or session.closed, "event", timeout=60
            )
            while self._taken < len(session.received):
                event = session.received[self._taken]
                self._taken += 1
                await self._take(event)

    async def _take(self, event: Event) -> None:
        match event["type"]:
            case "input_audio_buffer.append":
                await self._hear()
            case "response.create" if self._busy:
                code = "conversation_already_has_active_response"
                await self._session.error("A response is being made.", code, event_id=event.get("event_id"))
            case "response.create":
                self._respond()
            case "response.cancel":
                await self._cut()

    # Listening.

    async def _hear(self) -> None:
        heard = self._session.heard
        while len(heard) >= self._heard_ms * 8 + _FRAME:
            start = self._heard_ms * 8
            frame = g711.decode(heard[start : start + _FRAME], "PCMU").astype(np.float64)
            self._heard_ms += 20
            power = float(np.mean(np.square(frame))) / 32768.0**2
            if 10 * np.log10(max(power, 1e-12)) >= LOUD_DB:
                self._loud_ms, self._quiet_ms = self._loud_ms + 20, 0
            else:
                self._loud_ms, self._quiet_ms = 0, self._quiet_ms + 20
            await self._judge()

    async def _judge(self) -> None:
        turns = self._session.session["audio"]["input"]["turn_detection"]
        if self._speaking is None and self._loud_ms >= ONSET_MS:
            self._speaking = new_id("item")
            start = max(0, self._heard_ms - self._loud_ms - turns["prefix_padding_ms"])
            await self._session.send(
                "input_audio_buffer.speech_started", item_id=self._speaking, audio_start_ms=start
            )
            if turns["interrupt_response"]:
                await self._cut()
        elif self._speaking is not None and self._quiet_ms >= turns["silence_duration_ms"]:
            item_id, self._speaking = self._speaking, None
            await self._commit(item_id)
            if turns["create_response"] and not self._busy:
                self._respond()

    async def _commit(self, item_id: str) -> None:
        session = self._session
        item: Event = {"id": item_id, "object": "realtime.item", "type": "message", "role": "user"}
        item |= {"status": "completed", "content": [{"type": "input_audio", "transcript": None}]}
        await session.send("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=self._heard_ms)
        await session.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)
        session.items[item_id] = item
        await session.send("conversation.item.added", item=item, previous_item_id=None)
        await session.send("conversation.item.done", item=item, previous_item_id=None)
        self._utterances, self._replies = self._utterances + 1, 0
        place = {"item_id": item_id, "content_index": 0}
        kind = "conversation.item.input_audio_transcription"
        if session.session["audio"]["input"]["transcription"] is not None:
            text = self._turn()["hears"]
            await session.send(f"{kind}.delta", **place, delta=text)
            await session.send(f"{kind}.completed", **place, transcript=text, usage=USAGE)

    # Speaking.

    @property
    def _busy(self) -> bool:
        return self._making is not None and not self._making.done()

    def _respond(self) -> None:
        reply: Mapping[str, Any] = {"says": self._script["greeting"]}
        if self._utterances:
            turn = self._turn()
            reply = turn["replies"][min(self._replies, len(turn["replies"]) - 1)]
            self._replies += 1
        self._stop = False
        self._making = asyncio.create_task(self._make(reply))

    def _turn(self) -> Mapping[str, Any]:
        turns: list[Mapping[str, Any]] = self._script["turns"]
        return turns[min(self._utterances, len(turns)) - 1]

    async def _make(self, reply: Mapping[str, Any]) -> None:
        calls = [(call["name"], call["arguments"]) for call in reply.get("calls", ())]
        if text := reply.get("says"):
            await self._say(text, calls)
        else:
            for call in calls:
                await self._session.call_tool(*call)

    async def _say(self, text: str, calls: list[tuple[str, str]]) -> None:
        session = self._session
        item_id = await session.begin()
        audio = g711.encode(tones.tone(440, sound_ms(text), level=0.3), "PCMU")
        for start in range(0, len(audio), PIECE_MS * 8):
            if self._stop:
                break
            await session.say(item_id, audio[start : start + PIECE_MS * 8])
            await asyncio.sleep(PIECE_MS / AHEAD / 1000)
        if self._stop:
            self.cancelled.append(item_id)
            await session.finish(item_id, text, status="cancelled")
        else:
            await session.finish(item_id, text, calls=calls)

    async def _cut(self) -> None:
        if self._making is not None:
            self._stop = True
            await self._making
