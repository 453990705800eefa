"""Both sides of a call's sound, laid beside each other on the call's media clock. Pure: 20 ms are one tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from offhook.audio.frames import FRAME_MS, SILENCE, Law

__all__ = ["Tap"]

SLACK: Final = 4
"""
Ticks that a side may be behind and still go on where it left off: a packet of 60 ms gives three frames at its end, and
a session that hears promptly gets frames as unevenly as they come. Past that there was a gap, which is silence.
"""
AHEAD: Final = 25
"Ticks that a side may be ahead; what would be laid further on is left out."
CHUNK: Final = 50
"Ticks that are handed on together."
_HELD_BACK: Final = SLACK + 1


class Tap:
    """
    Takes a tick every 20 ms and a frame of either side where there is one; a side that has none is silent.

    `on_chunk` gets what was heard and what was sent, both of the same length, a second at a time. All frames are in one
    law. Between `pause` and `resume` both sides are silent, and time goes on.
    """

    __slots__ = ("_count", "_heard", "_on_chunk", "_paused", "_sent", "_silence", "ticks")

    def __init__(self, law: Law, on_chunk: Callable[[bytes, bytes], None]) -> None:
        self._silence = SILENCE[law]
        self._on_chunk = on_chunk
        self._heard: list[bytes] = []
        self._sent: list[bytes] = []
        # Ticks since what was handed on last; the lists begin there.
        self._count = 0
        self._paused = False
        self.ticks = 0
        "How long it has listened."

    @property
    def duration_ms(self) -> int:
        return self.ticks * FRAME_MS

    def tick(self) -> None:
        """20 ms begin; the frames that are heard and sent in them follow."""
        self.ticks += 1
        self._count += 1
        if self._count >= CHUNK + _HELD_BACK:
            self._hand_on(CHUNK)

    def heard(self, frame: bytes) -> None:
        self._add(self._heard, frame)

    def sent(self, frame: bytes) -> None:
        self._add(self._sent, frame)

    def skip(self, frames: int) -> None:
        """So many ticks were left out: nothing was sent in them, and nothing heard."""
        self.ticks += frames
        self._count += frames
        self._level()

    def pause(self) -> None:
        self._level()
        self._paused = True

    def resume(self) -> None:
        self._level()
        self._paused = False

    def finish(self) -> None:
        """Hand on the rest."""
        if self._count:
            self._hand_on(self._count)

    def _add(self, side: list[bytes], frame: bytes) -> None:
        if self._paused:
            return
        behind = self._count - len(side)
        if behind > SLACK:
            side.extend([self._silence] * (behind - 1))
        elif behind <= -AHEAD:
            return
        side.append(frame)

    def _level(self) -> None:
        """Fill both sides up to now."""
        for side in (self._heard, self._sent):
            side.extend([self._silence] * (self._count - len(side)))

    def _hand_on(self, count: int) -> None:
        for side in (self._heard, self._sent):
            side.extend([self._silence] * (count - len(side)))
        heard, sent = b"".join(self._heard[:count]), b"".join(self._sent[:count])
        del self._heard[:count], self._sent[:count]
        self._count -= count
        self._on_chunk(heard, sent)
