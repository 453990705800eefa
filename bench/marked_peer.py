"""
The far end of many calls, as `rtp_peer.py`, whose frames say when they were sent and which reads such frames.

The report also has `spoken`: for each response that was heard, its call and number, and in seconds of CLOCK_MONOTONIC
when its first delta was sent, when its first packet came, when its last, and when the first silent packet after it.
"""

from __future__ import annotations

import time
from typing import Any

from marks import MAGIC, MARK, SILENCE, marked
from rtp_peer import HEADER, SLOTS, Peer, RtpPeer, Stream, main


def wall_offset() -> float:
    """Return wall time minus monotonic time: the best of some readings, since one may be interrupted."""
    readings = []
    for _ in range(50):
        before = time.monotonic()
        wall = time.time()
        after = time.monotonic()
        readings.append((after - before, wall - (before + after) / 2))
    return min(readings)[1]


class MarkedPeer(Peer):
    """Streams are numbered in the order in which they were added."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.numbers: dict[Stream, int] = {}
        self.counts: dict[Stream, int] = {}
        self.spoken: list[list[float]] = []
        self.current: dict[Stream, list[float]] = {}
        self.unmarked = 0

    def add(self, target: tuple[str, int]) -> None:
        super().add(target)
        stream = self.streams[target]
        self.numbers[stream] = len(self.numbers)
        self.counts[stream] = 0

    def reset(self) -> None:
        super().reset()
        self.offset = wall_offset()
        # What is being said now stays known, but its beginning was before.
        self.spoken, self.unmarked = [], 0

    def report(self) -> dict[str, Any]:
        return {**super().report(), "spoken": self.spoken, "unmarked": self.unmarked}

    def send_slot(self, slot: int) -> None:
        for stream in self.ring[slot % SLOTS]:
            stream.sequence = stream.sequence + 1 & 0xFFFF
            stream.timestamp = stream.timestamp + 160 & 0xFFFFFFFF
            self.counts[stream] = count = self.counts[stream] + 1
            header = HEADER.pack(0x80, 0, stream.sequence, stream.timestamp, stream.ssrc)
            frame = marked(self.numbers[stream], count, time.monotonic_ns())
            try:
                self.socket.sendto(header + frame, stream.target)
            except OSError:
                continue
            self.sent += 1

    def took(self, stream: Stream, data: bytes, at: float) -> None:
        at -= self.offset
        current = self.current.get(stream)
        if data[12:] == SILENCE:
            if current is not None and not current[5]:
                current[5] = at
        elif data[12:16] != MAGIC:
            self.unmarked += 1
        else:
            _, call, response, sent = MARK.unpack_from(data, 12)
            if current is None or current[1] != response:
                current = self.current[stream] = [call, response, sent / 1e9, at, at, 0.0]
                self.spoken.append(current)
            current[4:] = at, 0.0


class MarkedRtpPeer(RtpPeer):
    """A marked peer's process, from asyncio."""

    program = __file__


if __name__ == "__main__":
    main(MarkedPeer)
