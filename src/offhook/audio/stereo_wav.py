"""
WAV files of two channels of G.711, kept as it came: 16 kB a second, and what every player knows.

The header is made anew with each piece that is written, after the piece itself: a file that was cut off anywhere has a
header that tells of no more than there is.
"""

from __future__ import annotations

import struct
from typing import Final

from offhook.audio.frames import SAMPLE_RATE, Law

__all__ = ["BLOCK", "HEADER_SIZE", "MAX_DATA", "create_header", "interleave", "is_header"]

CHANNELS: Final = 2
BLOCK: Final = CHANNELS
"Bytes of one moment: a sample for each channel."
_TAGS: Final[dict[Law, int]] = {"PCMA": 6, "PCMU": 7}
# RIFF size WAVE | "fmt " size tag channels rate bytes-a-second block bits extension | "fact" size samples | "data" size
_HEADER: Final = struct.Struct("<4sI4s 4sIHHIIHHH 4sII 4sI")
HEADER_SIZE: Final = _HEADER.size
MAX_DATA: Final = 2**32 - 1 - HEADER_SIZE - BLOCK
"A RIFF file's sizes have 32 bits: three days."


def create_header(law: Law, data_size: int) -> bytes:
    """Return what goes before so many bytes of both channels together."""
    return _HEADER.pack(
        b"RIFF",
        HEADER_SIZE - 8 + data_size,
        b"WAVE",
        b"fmt ",
        18,
        _TAGS[law],
        CHANNELS,
        SAMPLE_RATE,
        SAMPLE_RATE * BLOCK,
        BLOCK,
        8,
        0,
        b"fact",
        4,
        data_size // BLOCK,
        b"data",
        data_size,
    )


def is_header(start: bytes) -> Law | None:
    """Return the law of a file that starts so; `None` for one that is not of this kind."""
    for law in _TAGS:
        if start[:4] == b"RIFF" and start[8:42] == create_header(law, 0)[8:42]:
            return law
    return None


def interleave(left: bytes, right: bytes) -> bytes:
    """Return two channels of the same length as one."""
    if len(left) != len(right):
        raise ValueError(f"{len(left)} samples on the left, {len(right)} on the right")
    both = bytearray(BLOCK * len(left))
    both[0::2] = left
    both[1::2] = right
    return bytes(both)
