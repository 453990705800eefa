"""An engine that is started by the first thing that it is given."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from offhook.realtime.engine import (
    AudioFormat,
    Engine,
    EngineCommand,
    EngineEvent,
    EngineFailed,
    EngineStart,
    EngineUnavailable,
)

__all__ = ["EngineAtNeed"]

MAX_WAITING = 3000
"Frames of 20 ms and commands that wait while the engine starts: a minute."

logger = logging.getLogger("offhook.realtime")


class EngineAtNeed:
    """
    Wraps an engine whose slot is taken, for a session whose client may first choose its audio formats.

    `start` returns at once. What comes before the engine is ready waits for it, so no sound is lost. An engine that
    cannot be had, or not within `limit_s`, is told as `EngineFailed`.
    """

    def __init__(self, engine: Engine, audio_format: Callable[[], AudioFormat], *, limit_s: float) -> None:
        self._engine = engine
        self._audio_format = audio_format
        self._limit_s = limit_s
        self._start: EngineStart | None = None
        self._emit: Callable[[EngineEvent], None] = lambda event: None
        self._opening: asyncio.Task[None] | None = None
        self._waiting: deque[bytes | EngineCommand] = deque()
        self._ready = False
        self._failed = False

    async def start(self, start: EngineStart, emit: Callable[[EngineEvent], None]) -> None:
        self._start, self._emit = start, emit

    def hear(self, audio: bytes) -> None:
        if self._ready:
            self._engine.hear(audio)
        else:
            self._wait(audio)

    def handle(self, command: EngineCommand) -> None:
        if self._ready:
            self._engine.handle(command)
        else:
            self._wait(command)

    async def close(self) -> None:
        self._emit = lambda event: None
        self._failed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await self._engine.close()

    def _wait(self, given: bytes | EngineCommand) -> None:
        if self._failed or self._start is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._fail("it does not start, and too much waits for it")
            return
        self._waiting.append(given)
        if self._opening is None:
            start = replace(self._start, audio_format=self._audio_format())
            self._opening = asyncio.create_task(self._open(start))

    async def _open(self, start: EngineStart) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                await self._engine.start(start, self._emit)
            self._catch_up()
        except EngineUnavailable as error:
            self._fail(str(error))
        except TimeoutError:
            self._fail(f"it was not ready within {self._limit_s:g} s")
        except Exception as error:
            logger.exception("an engine failed to start", extra={"event": "engine.fault"})
            self._fail(f"{type(error).__name__} while it started")

    def _catch_up(self) -> None:
        while self._waiting:
            given = self._waiting.popleft()
            if isinstance(given, bytes):
                self._engine.hear(given)
            else:
                self._engine.handle(given)
        self._ready = not self._failed

    def _fail(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            self._waiting.clear()
            self._emit(EngineFailed(why))
