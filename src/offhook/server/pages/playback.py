"""What a call's page has of its recording: the sound to play, and how loud it is, to be drawn as a waveform."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response

from offhook.audio import g711
from offhook.audio.stereo_wav import BLOCK, HEADER_SIZE, is_header
from offhook.calls.errors import CallError
from offhook.calls.past import PastUnavailable
from offhook.calls.recording import Recording

from ..recordings import create_sound_response
from ..services import KeptRecordings
from .logins import Login
from .shell import HEADERS, Shell

__all__ = ["Playback", "Playing", "loudness"]

PEAKS = 800
"Points of a waveform: what a wide screen has pixels for."


@dataclass(frozen=True, slots=True)
class Playing:
    """A recording on a page. `offset_s` is how long after the call's first entry it began."""

    state: str
    is_over: bool
    duration_s: float
    offset_s: float


class Playback:
    def __init__(self, shell: Shell, recordings: KeptRecordings | None) -> None:
        self._recordings = recordings
        shell.page("/calls/{call_id}/recording.wav", self.play)
        shell.page("/calls/{call_id}/waveform", self.waveform)

    async def of(self, call_id: str, timeline: Mapping[str, Any]) -> Playing | None:
        """Return what there is to play of a call; `None` where nothing was recorded, or nothing can be read."""
        try:
            found = await self._find(call_id)
        except CallError:
            return None
        return Playing(
            found.state.value,
            found.state.is_over,
            found.duration_ms / 1000,
            max(0.0, found.started_at - _began(timeline, found.started_at)),
        )

    async def play(self, request: Request, login: Login) -> Response:
        recording = await self._find(request.path_params["call_id"])
        assert self._recordings is not None
        return create_sound_response(self._recordings, recording)

    async def waveform(self, request: Request, login: Login) -> Response:
        """Return how loud each side is, so that a browser need not fetch and decode an hour of sound to draw it."""
        recording = await self._find(request.path_params["call_id"])
        assert self._recordings is not None
        try:
            peaks = await asyncio.to_thread(loudness, self._recordings.file_of(recording))
        except (OSError, ValueError) as error:
            raise CallError(404, f"The recording cannot be read: {error}.") from None
        return Response(orjson.dumps(peaks), media_type="application/json", headers=HEADERS)

    async def _find(self, call_id: str) -> Recording:
        try:
            found = await self._recordings.find(None, call_id) if self._recordings is not None else None
        except PastUnavailable as error:
            raise CallError(503, f"What is known of recordings cannot be read now: {error}.") from None
        if found is None:
            raise CallError(404, "This call was not recorded, or its recording was deleted.")
        return found


def loudness(path: Path, points: int = PEAKS) -> list[list[float]]:
    """
    Return the peaks of both channels, 0 to 1, of a recording's file.

    Raises `OSError`, and `ValueError` for a file of another kind.
    """
    with path.open("rb") as file:
        if (law := is_header(file.read(HEADER_SIZE))) is None:
            raise ValueError("this is no recording of ours")
        moments = (path.stat().st_size - HEADER_SIZE) // BLOCK
        if moments <= 0:
            return [[], []]
        ends = np.linspace(0, moments, min(points, moments) + 1).astype(int)
        peaks = np.zeros((2, len(ends) - 1))
        # Point by point: of an hour, each is 4.5 s of sound, for which numpy keeps the loop waiting least.
        for point, (start, end) in enumerate(pairwise(ends)):
            piece = file.read((end - start) * BLOCK)
            if len(piece) < (end - start) * BLOCK:
                break  # cut off meanwhile
            samples = np.abs(g711.decode(piece, law).astype(np.int32))
            peaks[:, point] = samples.reshape(-1, 2).max(axis=0) / 32768
    return [[round(float(peak), 3) for peak in channel] for channel in peaks]


def _began(timeline: Mapping[str, Any], otherwise: float) -> float:
    """Return when the timeline's first entry was, in Unix seconds."""
    try:
        return datetime.datetime.fromisoformat(str(timeline.get("started_at"))).timestamp()
    except ValueError:
        return otherwise
