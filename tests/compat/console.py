"""
How an app under test talks with its case: a JSON object a line, told on standard output and taken from standard input.

Runs in the client's own environment: only Python's library is there for certain.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import traceback
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any


def tell(what: str, **fields: Any) -> None:
    print(json.dumps({"what": what, **fields}), flush=True)


def tell_versions(*packages: str) -> None:
    tell("versions", python=sys.version.split()[0], **{name: version(name) for name in packages})


class TellFaults(logging.Handler):
    """Tells every warning and error that a library logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        trace = self.format(record) if record.exc_info else ""
        tell("fault", where=record.name, message=record.getMessage(), trace=trace)


async def asked() -> AsyncIterator[dict[str, Any]]:
    """Yield what is asked for, until nobody asks any more."""
    reader = asyncio.StreamReader(limit=1 << 24)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    async for line in reader:
        yield json.loads(line)


class Microphone:
    """Pushes pcm16 in frames of 20 ms at their pace, all silent but for what is spoken, as a microphone does."""

    def __init__(self, send: Any, rate: int = 24000) -> None:
        self._send, self._rate = send, rate
        self._samples = bytearray()

    def speak(self, pcm: bytes) -> None:
        self._samples += pcm

    async def silent(self) -> None:
        """Wait until all that was to be spoken has been."""
        while self._samples:
            await asyncio.sleep(0.01)

    async def speaks_until_hung_up(self) -> None:
        """Speak what `speak` brings, until it is asked to `hang up`."""
        async for line in asked():
            if line["what"] == "speak":
                self.speak(bytes.fromhex(line["pcm"]))
            elif line["what"] == "hang up":
                break

    async def run(self) -> None:
        size = self._rate // 50 * 2
        due = asyncio.get_running_loop().time()
        while True:
            frame, self._samples = self._samples[:size], self._samples[size:]
            await self._send(bytes(frame).ljust(size, b"\0"))
            due += 0.02
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))


class Came:
    """How often each type of event has come, for a program that waits by itself."""

    def __init__(self) -> None:
        self._types: list[str] = []

    def add(self, event_type: str) -> None:
        self._types.append(event_type)

    def count(self, event_type: str) -> int:
        return self._types.count(event_type)

    async def until(self, event_type: str, count: int) -> None:
        """Wait until so many have come."""
        async with asyncio.timeout(30):
            while self.count(event_type) < count:
                await asyncio.sleep(0.01)

    async def one_more(self, event_type: str) -> None:
        await self.until(event_type, self.count(event_type) + 1)


async def guarded(coroutine: Any) -> None:
    """Await it; what it raises is told as a fault."""
    try:
        await coroutine
    except Exception as error:
        tell("fault", where=coroutine.__qualname__, message=repr(error), trace=traceback.format_exc())


@contextlib.asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[None]:
    """Run these beside the block, and end them with it."""
    tasks = [asyncio.create_task(guarded(coroutine)) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
