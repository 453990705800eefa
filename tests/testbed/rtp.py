"""A carrier's media: RTP packets made and read by hand, at the pace of the test."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Iterable
from types import TracebackType

from .waiting import PATIENCE_S

__all__ = ["Rtp"]

_RTP = struct.Struct("!BBHII")


class Rtp:
    """One UDP socket and one stream. Use as an async context manager; `came` is (time, datagram, source)."""

    def __init__(self, host: str = "127.0.0.1", *, ssrc: int = 0x1234ABCD) -> None:
        self.ssrc = ssrc
        self.sequence = 0xFFF0
        self.timestamp = 0xFFFFF000
        self.came: list[tuple[float, bytes, tuple[str, int]]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((host, 0))

    async def __aenter__(self) -> Rtp:
        asyncio.get_running_loop().add_reader(self._socket, self._receive)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def send_raw(self, data: bytes, to: tuple[str, int]) -> None:
        self._socket.sendto(data, to)

    def packet(
        self, payload: bytes, *, payload_type: int = 0, marker: bool = False, samples: int = 160
    ) -> bytes:
        """Return the next packet of the stream; `samples` is how far the clock goes on after it."""
        header = _RTP.pack(0x80, payload_type | marker << 7, self.sequence, self.timestamp, self.ssrc)
        self.sequence = self.sequence + 1 & 0xFFFF
        self.timestamp = self.timestamp + samples & 0xFFFFFFFF
        return header + payload

    def event(
        self, to: tuple[str, int], digit: str, payload_type: int, steps: Iterable[int], *, frame: int = 160
    ) -> None:
        """
        Send packets of one digit's event: step n says n frames, and negative steps carry the end bit.

        `frame` is 20 ms of the event's clock.
        """
        code = "0123456789*#ABCD".index(digit)
        for at, step in enumerate(steps):
            payload = struct.pack("!BBH", code, 10 | (0x80 if step < 0 else 0), abs(step) * frame)
            self.send_raw(self.packet(payload, payload_type=payload_type, marker=at == 0, samples=0), to)
        self.timestamp = self.timestamp + 10 * frame & 0xFFFFFFFF

    async def speak(self, to: tuple[str, int], ms: int, *, loud: bool, frame_ms: int = 20) -> None:
        """Send that much sound, in real time. Loud is a square wave."""
        count = frame_ms * 8
        payload = bytes([0x10 if loud and at // 8 % 2 else 0x90 if loud else 0xFF for at in range(count)])
        started = time.monotonic()
        for number in range(ms // frame_ms):
            if (delay := started + number * frame_ms / 1000 - time.monotonic()) > 0:
                await asyncio.sleep(delay)
            self.send_raw(self.packet(payload, samples=count), to)

    def loud(self, since: float = 0.0) -> int:
        """Return how many packets of sound came that are not silence."""
        return sum(
            1
            for at, data, _ in self.came
            if at > since and len(data) == 172 and sum((byte & 0x7F) < 0x50 for byte in data[12:]) > 40
        )

    def pressed(self, payload_type: int, since: float = 0.0) -> str:
        """Return the digits whose events came, each once, as a far end would read them."""
        starts: dict[int, int] = {}
        for at, data, _ in self.came:
            if at > since and len(data) == 16 and data[1] & 0x7F == payload_type:
                starts[_RTP.unpack_from(data)[3]] = data[12]
        return "".join("0123456789*#ABCD"[code] for code in starts.values())

    async def hears(self, since: float, packets: int = 5, timeout: float = PATIENCE_S) -> None:
        try:
            async with asyncio.timeout(timeout):
                while self.loud(since) < packets:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"heard nothing; {len(self.came)} packets came") from None

    def _receive(self) -> None:
        while True:
            try:
                data, source = self._socket.recvfrom(2048)
            except (BlockingIOError, ConnectionError):
                return
            self.came.append((time.monotonic(), data, source))
