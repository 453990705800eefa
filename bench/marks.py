"""
Frames of sound that say when they were sent, and by whom.

G.711 passes the node byte for byte, and all processes of a machine share CLOCK_MONOTONIC. So a frame can carry the
time of its own sending, and whoever gets it knows how long it was under way, with nothing to look up.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

FRAME_BYTES = 160
SILENCE = b"\xff" * FRAME_BYTES
MAGIC = b"\x13\x37\x8e\xd1"
MARK = struct.Struct("!4sHIq")
LOUD = bytes([0x10, 0x90] * FRAME_BYTES)[: FRAME_BYTES - MARK.size]


def marked(call: int, number: int, at_ns: int) -> bytes:
    """Return a loud frame with a mark: whose it is, which one, and when it was sent."""
    return MARK.pack(MAGIC, call, number, at_ns) + LOUD


def find_marks(audio: bytes) -> Iterator[tuple[int, int, int]]:
    """Give call, number and time of each marked frame."""
    at = audio.find(MAGIC)
    while at >= 0 and at + MARK.size <= len(audio):
        _, call, number, sent = MARK.unpack_from(audio, at)
        yield call, number, sent
        at = audio.find(MAGIC, at + MARK.size)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return percentiles and the number of values."""
    ordered = sorted(values)
    shares = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
    found = {
        name: round(ordered[math.ceil(share * len(ordered)) - 1], 3) if ordered else None
        for name, share in shares
    }
    return {**found, "n": len(ordered)}
