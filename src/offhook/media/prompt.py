"""
A jitter buffer for a listener that keeps no time of its own: what comes in order is given at once.

A model at the end of a WebSocket takes sound as it comes, so the wait that makes frames even would be delay for
nothing. The wait remains where it is needed: what follows a gap is held until the gap is filled, or until the missing
frame's turn is over and it must be made up for. That turn is later than in an even buffer, since it costs nothing
while nothing is missing.
"""

from __future__ import annotations

from typing import Final

from offhook.audio.frames import FRAME_MS, Law
from offhook.media.jitter import MAX_FRAMES, SPARE_S, START_FRAMES, JitterBuffer

__all__ = ["PromptBuffer"]

LEAD_FRAMES: Final = 3
"""How much later than its packet should come a frame's turn begins: it is missed after 60 to 80 ms."""
MAX_AHEAD: Final = 50
"""A second: what comes faster than time passes, and has not been waited for, is left out beyond this."""


class PromptBuffer(JitterBuffer):
    """
    One source's buffer. `insert` what comes, then `take_early` until there is nothing; `take` every 20 ms.

    `take` returns no sound, `b""`, for a frame that was given before its turn. After it, `take_early` again: what was
    held back by the frame whose turn it was is free now.
    """

    __slots__ = ("_ahead",)

    spare_s = SPARE_S + (LEAD_FRAMES - START_FRAMES) * FRAME_MS / 1000

    def __init__(self, law: Law) -> None:
        # Frames given less ticks passed: how far what was given lies before its time.
        self._ahead = 0
        super().__init__(law)

    @property
    def lead(self) -> int:
        """Ticks from now to the turn of the frame that was given last."""
        return max(0, self._floor - self._cursor)

    def skip(self, frames: int) -> None:
        """Note that time has passed in which `take` was not called."""
        self._ahead = max(self._ahead - frames, -MAX_AHEAD)

    def take(self, now: float) -> bytes | None:
        if self._ahead > -MAX_AHEAD:
            self._ahead -= 1
        frame = super().take(now)
        # `_floor` is the place after the last one given, and the cursor has just gone by one.
        if frame is None and self._cursor <= self._floor:
            return b""
        return frame

    def take_early(self) -> bytes | None:
        """Return the frame after the last one given or missed, or `None` when it is not there."""
        frames = self._frames
        while frames:
            index = max(self._cursor, self._floor)
            frame = frames.pop(index, None)
            if frame is None:
                return None
            self._floor = index + 1
            if self._ahead < MAX_AHEAD:
                self._ahead += 1
                return frame
            self.skipped += 1
        return None

    def _start(self, timestamp: int, now: float) -> None:
        super()._start(timestamp, now)
        self._go_on_from(0)

    def _go_on_from(self, index: int) -> None:
        self._floor = index
        self._cursor = index - LEAD_FRAMES

    def _place_late(self, index: int, newest: bool, now: float) -> bool:
        if newest:
            return super()._place_late(index, newest, now)
        # It was made up for, and what follows may have been given. Wait longer for the next one like it.
        self._missed_one(now)
        if self._late_in_window > 1 and self._floor - self._cursor < MAX_FRAMES:
            self._floor = max(self._floor, self._cursor)
            self._cursor -= 1
            self.stretched += 1
        self.late += 1
        return False
