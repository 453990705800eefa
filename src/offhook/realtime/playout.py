"""
What the caller has really heard (decision 7 of the design).

It is the sender's played-samples clock, mapped to items and words.

Audio is handed over faster than it is played. What is handed over has its place on the played clock; where
the clock stands when playout is cut says how much of which item was heard.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from offhook.realtime.conversation import Item

__all__ = ["Cut", "Playout", "PlayoutChange"]

_NEVER = 1 << 62


@dataclass(slots=True, eq=False)
class Track:
    """One item's place in the queue."""

    response_id: str
    item: Item
    start: int
    "Where it starts on the played clock, in samples."
    length: int = 0
    finished: bool = False
    "Whether its response has made all its audio."

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class PlayoutChange:
    """The sound of a response began or ended for the caller."""

    kind: Literal["started", "stopped"]
    response_id: str


@dataclass(frozen=True, slots=True)
class Cut:
    """An item that was cut short, and how much of it was heard."""

    response_id: str
    item: Item
    heard_ms: int


class Playout:
    """The queue of one call's sound. All positions are samples on the sender's played clock."""

    def __init__(self, samples_per_ms: int, sample_bytes: int) -> None:
        self._samples_per_ms = samples_per_ms
        self._sample_bytes = sample_bytes
        self._tracks: deque[Track] = deque()
        self._played = 0
        self._end = 0
        self._sounding: str | None = None
        self._filled = 0
        "Where sound that belongs to no item ends."
        # Until the clock stands there, it tells nothing new: frames come 50 times a second for each call.
        self._due = _NEVER

    @property
    def busy(self) -> bool:
        """Whether something is queued, being played, or expected to go on."""
        return bool(self._tracks)

    @property
    def filling(self) -> bool:
        """Whether sound that belongs to no item is queued or being played."""
        return self._played < self._filled

    @property
    def ahead(self) -> int:
        """Samples that were handed over and not played yet."""
        return max(0, self._end - self._played)

    @property
    def sounding(self) -> str | None:
        """The response that the caller hears now (`output_audio_buffer.started` was sent, `stopped` not yet)."""
        return self._sounding

    @property
    def end(self) -> int:
        """Where on the played clock the next audio will start."""
        return max(self._end, self._played)

    def holds(self, response_id: str) -> bool:
        return any(track.response_id == response_id for track in self._tracks)

    def add(self, response_id: str, item: Item, audio: bytes) -> list[PlayoutChange]:
        """Queue audio that is handed over now."""
        if not audio:
            return []
        samples = len(audio) // self._sample_bytes
        self._track(response_id, item).length += samples
        self._end += samples
        return self._advance()

    def fill(self, samples: int) -> None:
        """Queue sound that belongs to no item, behind all that is queued; what is added later starts after it."""
        self._end = self._filled = max(self._end, self._played) + samples

    def finish(self, response_id: str | None) -> list[PlayoutChange]:
        """A response, or with `None` every one, has made all its audio."""
        for track in self._tracks:
            if response_id in (track.response_id, None):
                track.finished = True
        return self._advance()

    def progress(self, played: int) -> list[PlayoutChange]:
        """Set the played clock."""
        self._played = played
        return self._advance() if played >= self._due else []

    def drain(self, played: int) -> list[PlayoutChange]:
        """
        The sender's queue ran empty: all that was handed over has been played.

        A sender that pads its last frame counts the padding too, so what follows starts where its clock stands.
        """
        shift = played - self._end
        for track in self._tracks:
            track.start += shift
        self._played = self._end = played
        self._filled = 0
        return self._advance()

    def cut(self) -> list[Cut]:
        """Stop: forget the queue, and say of each item in it that was not heard whole how much was."""
        cuts = []
        for track in self._tracks:
            heard = min(max(self._played - track.start, 0), track.length)
            if heard < track.length or not track.finished:
                cuts.append(Cut(track.response_id, track.item, heard // self._samples_per_ms))
        self._tracks.clear()
        self._end = self._played
        self._filled = 0
        self._sounding = None
        self._due = _NEVER
        return cuts

    def _track(self, response_id: str, item: Item) -> Track:
        last = self._tracks[-1] if self._tracks else None
        if last is not None and last.item is item:
            return last
        self._end = max(self._end, self._played)
        track = Track(response_id, item, self._end)
        self._tracks.append(track)
        return track

    def _advance(self) -> list[PlayoutChange]:
        changes: list[PlayoutChange] = []
        while self._tracks:
            track = self._tracks[0]
            if track.start <= self._played and self._sounding != track.response_id:
                if self._sounding is not None:
                    changes.append(PlayoutChange("stopped", self._sounding))
                self._sounding = track.response_id
                changes.append(PlayoutChange("started", track.response_id))
            if not track.finished or self._played < track.end:
                break
            self._tracks.popleft()
            if not self.holds(track.response_id) and self._sounding == track.response_id:
                self._sounding = None
                changes.append(PlayoutChange("stopped", track.response_id))
        self._due = self._next_change()
        return changes

    def _next_change(self) -> int:
        """Return where on the played clock the next change is due, as far as it is known."""
        if not self._tracks:
            return _NEVER
        track = self._tracks[0]
        if self._sounding != track.response_id:
            return track.start
        return track.end if track.finished else _NEVER
