"""What a session has to say to one sideband, on its way to the socket."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

from starlette.types import Send

from .sideband_limits import SidebandLimits

__all__ = ["SidebandWriter"]

BATCH = 16
"Frames sent in one go, some half a millisecond's work, before the loop gets a turn."


class SidebandWriter:
    """
    A bounded queue of frames; the `Listener` of a session's runner.

    `send` and `close` never wait. `run` writes until the session closes it or the reader has fallen too far behind;
    `dropped` then says so.
    """

    def __init__(self, limits: SidebandLimits) -> None:
        self._limits = limits
        self._frames: deque[tuple[Literal["text", "bytes"], str | bytes]] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._close: tuple[int, str] | None = None
        self._drain_timer: asyncio.TimerHandle | None = None
        self.dropped = ""
        "Why the reader was dropped; empty while it was not."

    def send(self, frame: bytes) -> None:
        """Queue one event, JSON as UTF-8."""
        self._queue("text", frame)

    def pass_on(self, frame: str | bytes) -> None:
        """Queue a frame of somebody else's as it is, text or binary."""
        self._queue("text" if isinstance(frame, str) else "bytes", frame)

    def close(self, code: int, reason: str) -> None:
        """Close after what is queued (API row S17), as far as that is read in time."""
        if self._close is None and not self.dropped:
            self._close = (code, reason)
            self._wake.set()
            late = f"dropped: the last events were not read within {self._limits.drain_s:g} s"
            self._drain_timer = asyncio.get_running_loop().call_later(self._limits.drain_s, self._drop, late)

    async def run(self, send: Send) -> None:
        """Write to an ASGI WebSocket until it is closed, or the reader dropped."""
        writing = asyncio.create_task(self._write(send))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((writing, stopping), return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        finally:
            if self._drain_timer is not None:
                self._drain_timer.cancel()
            for task in (writing, stopping):
                task.cancel()
            await asyncio.gather(writing, stopping, return_exceptions=True)

    def _queue(self, kind: Literal["text", "bytes"], frame: str | bytes) -> None:
        if self.dropped or self._close is not None:
            return
        self._frames.append((kind, frame))
        self._queued_bytes += len(frame)
        limits = self._limits
        if len(self._frames) > limits.queued_frames or self._queued_bytes > limits.queued_bytes:
            self._drop(f"dropped: the reader is {len(self._frames)} events behind")
            return
        self._wake.set()

    async def _write(self, send: Send) -> None:
        while True:
            for _ in range(min(BATCH, len(self._frames))):
                kind, frame = self._frames.popleft()
                self._queued_bytes -= len(frame)
                if kind == "text" and isinstance(frame, bytes):
                    frame = frame.decode()
                await send({"type": "websocket.send", kind: frame})
            if self._frames:
                await asyncio.sleep(0)
            elif self._close is not None:
                code, reason = self._close
                await send({"type": "websocket.close", "code": code, "reason": _close_reason(reason)})
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    def _drop(self, why: str) -> None:
        self.dropped = why
        self._frames.clear()
        self._queued_bytes = 0
        self._stop.set()


def _close_reason(reason: str) -> str:
    """Cut a reason to what fits into a close frame (RFC 6455 section 5.5)."""
    return reason.encode()[:123].decode(errors="ignore")
