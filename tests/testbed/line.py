"""A telephone line with no jitter buffer: speaks RTP on a socket of its own, and times each packet that comes."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from offhook.audio import g711
from offhook.audio.frames import FRAME_SAMPLES, SAMPLE_RATE
from offhook.audio.g711 import Samples
from offhook.cli.phone.sound import level_db, voiced_span

from .waiting import PATIENCE_S

__all__ = ["Heard", "Line", "Spoken"]

_HEADER = struct.Struct("!BBHII")
_FRAME_S = 0.020
_LOUD_DB = -45.0


@dataclass(frozen=True)
class Heard:
    """One packet of PCMU that came."""

    at: float
    timestamp: int
    level: float
    payload: bytes

    @property
    def loud(self) -> bool:
        return self.level >= _LOUD_DB


@dataclass
class Spoken:
    """Something said: when its first voiced sample left, and its last. 0 until then."""

    began: float = 0.0
    ended: float = 0.0


class Line:
    """
    One end of a call's sound. Use as an async context manager, dial with `media_port=line.port`, then `connect`.

    A packet leaves every 20 ms from then on: speech, or a faint noise as real lines have.
    """

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", 0))
        self._frames: deque[tuple[Samples, Spoken | None, Spoken | None]] = deque()
        self._said: asyncio.Event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        noise = np.random.default_rng(3).normal(0.0, 12.0, SAMPLE_RATE)
        self._noise = itertools.cycle(
            [noise[at : at + FRAME_SAMPLES].astype(np.int16) for at in range(0, len(noise), FRAME_SAMPLES)]
        )

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    async def __aenter__(self) -> Line:
        asyncio.get_running_loop().add_reader(self._socket, self._receive)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def connect(self, remote: tuple[str, int]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._send(remote))

    # Speaking.

    def say(self, samples: Samples) -> Spoken:
        """Queue speech at 8 kHz. Its times are known once it was sent; see `said`."""
        spoken = Spoken()
        first, end = voiced_span(samples)
        starts, ends = first // FRAME_SAMPLES, (end - 1) // FRAME_SAMPLES
        padded = np.zeros(-(-len(samples) // FRAME_SAMPLES) * FRAME_SAMPLES, np.int16)
        padded[: len(samples)] = samples
        for index, frame in enumerate(padded.reshape(-1, FRAME_SAMPLES)):
            self._frames.append(
                (frame, spoken if index == starts else None, spoken if index == ends else None)
            )
        return spoken

    async def said(self, spoken: Spoken, timeout: float = PATIENCE_S) -> Spoken:
        """Wait until the last voiced sample was sent."""
        async with asyncio.timeout(timeout):
            while not spoken.ended:
                self._said.clear()
                await self._said.wait()
        return spoken

    def hush(self) -> None:
        """Say no more of what is queued."""
        self._frames.clear()

    async def _send(self, remote: tuple[str, int]) -> None:
        started = time.monotonic()
        for count in itertools.count():
            due = started + count * _FRAME_S
            if (delay := due - time.monotonic()) > 0:
                await asyncio.sleep(delay)
            frame, starts, ends = self._frames.popleft() if self._frames else (None, None, None)
            noise = next(self._noise)
            samples = noise if frame is None else np.clip(frame.astype(np.int32) + noise, -32768, 32767)
            payload = g711.encode(samples.astype(np.int16), "PCMU")
            packet = _HEADER.pack(0x80, 0, count & 0xFFFF, count * FRAME_SAMPLES & 0xFFFFFFFF, 0x0FF00C)
            self._socket.sendto(packet + payload, remote)
            now = time.monotonic()
            # A packet holds the 20 ms before it is sent.
            if starts is not None:
                starts.began = now - _FRAME_S
            if ends is not None:
                ends.ended = now
                self._said.set()

    # Hearing.

    def _receive(self) -> None:
        while True:
            try:
                data = self._socket.recv(2048)
            except BlockingIOError:
                return
            payload = data[_HEADER.size :]
            level = level_db(g711.decode(payload, "PCMU"))
            self.heard.append(Heard(time.monotonic(), _HEADER.unpack_from(data)[3], level, payload))

    async def hears_sound(self, since: float, timeout: float = PATIENCE_S, *, ms: int = 60) -> float:
        """Wait for that much sound after `since`; return when the first of it came."""
        async with asyncio.timeout(timeout):
            while len(loud := [one.at for one in self.heard if one.at >= since and one.loud]) * 20 < ms:
                await asyncio.sleep(0.005)
        return loud[0]

    async def hears_silence(self, since: float, ms: int, timeout: float = PATIENCE_S) -> float:
        """Wait until nothing was heard for `ms` after `since`; return when the last sound before it came."""
        async with asyncio.timeout(timeout):
            while time.monotonic() - (last := self.last_sound(since)) < ms / 1000:
                await asyncio.sleep(0.01)
        return last

    def last_sound(self, since: float = 0.0) -> float:
        """Return when the last sound came, `since` if there was none after it."""
        return next((one.at for one in reversed(self.heard) if one.loud and one.at > since), since)
