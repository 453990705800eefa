"""What is in a recording: the file as a player reads it, and which of its 20 ms have sound on which side."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np

from offhook.audio import g711
from offhook.audio.frames import Law

from .node import Node, Seat

__all__ = ["Sound", "ask_recording", "fetch_recording", "parse_wav"]

_LOUD_DB = -45.0
_LAWS: dict[int, Law] = {6: "PCMA", 7: "PCMU"}


@dataclass(frozen=True)
class Sound:
    """A recording of two sides; `loud` are each side's frames of 20 ms, True where there is sound."""

    law: Law
    caller: list[bool]
    agent: list[bool]

    @property
    def ms(self) -> int:
        return 20 * len(self.caller)

    @staticmethod
    def loud_ms(side: list[bool], first_ms: float = 0, end_ms: float = 1e9) -> int:
        return 20 * sum(loud for number, loud in enumerate(side) if first_ms <= 20 * number < end_ms)

    @staticmethod
    def first_ms(side: list[bool], from_ms: float = 0) -> int:
        """Return where the first sound after that begins."""
        return next(20 * number for number, loud in enumerate(side) if loud and 20 * number >= from_ms)


def parse_wav(file: bytes) -> Sound:
    """Read a WAV file of two channels of G.711, by its chunks and their sizes alone."""
    riff, size, wave = struct.unpack("<4sI4s", file[:12])
    assert (riff, wave) == (b"RIFF", b"WAVE")
    assert size + 8 <= len(file)
    chunks, at = {}, 12
    while at < size + 8:
        name, length = struct.unpack("<4sI", file[at : at + 8])
        chunks[name] = file[at + 8 : at + 8 + length]
        assert len(chunks[name]) == length
        at += 8 + length + length % 2
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", chunks[b"fmt "][:16])
    assert (channels, rate, block, bits) == (2, 8000, 2, 8)
    data, law = chunks[b"data"], _LAWS[tag]
    assert struct.unpack("<I", chunks[b"fact"]) == (len(data) // 2,)
    return Sound(law, _loud(data[0::2], law), _loud(data[1::2], law))


def _loud(side: bytes, law: Law) -> list[bool]:
    samples = g711.decode(side[: len(side) // 160 * 160], law).astype(np.float64).reshape(-1, 160)
    power = np.mean(np.square(samples), axis=1) / 32768.0**2
    return [bool(level) for level in 10 * np.log10(np.maximum(power, 1e-12)) >= _LOUD_DB]


async def ask_recording(
    node: Node, seat: Seat, call_id: str, method: str = "GET", body: Any = None, *, path: str = "recording"
) -> httpx2.Response:
    """Ask the REST API something of a call's recording."""
    async with httpx2.AsyncClient(timeout=15, headers={"Authorization": f"Bearer {seat.api_key}"}) as client:
        return await client.request(method, f"{node.base_url}/realtime/calls/{call_id}/{path}", json=body)


async def fetch_recording(url: str, seat: Seat, **headers: str) -> httpx2.Response:
    """Get the sound from where a webhook says that it is."""
    headers["Authorization"] = f"Bearer {seat.api_key}"
    async with httpx2.AsyncClient(timeout=15, headers=headers) as client:
        return await client.get(url)
