"""Both sides of a call's sound, laid beside each other on the call's media clock. Pure: 20 ms are one tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from offhook.audio.frames import FRAME_MS, FRAME_SAMPLES, SILENCE, Law

__all__ = ["Tap"]

AHEAD: Final = 60
"Ticks that the caller's side may be ahead; what would be laid further on is left out."
CHUNK: Final = 50
"Ticks that are handed on together."
_HELD_BACK: Final = 10
"Ticks for which a frame may still be laid: a packet's sound is told of at the end of the packet."


class Tap:
    """
    Takes a tick every 20 ms and the frames of either side that belong to it; a side that has none is silent.

    Each frame lies on its own tick, whatever came before it: a loss or a burst on one side moves nothing of what
    follows. `on_chunk` gets what was heard and what was sent, both of the same length, a second at a time. All frames
    are in one law. Between `pause` and `resume` both sides are silent, and time goes on.
    """

    __slots__ = ("_count", "_heard", "_on_chunk", "_open_from", "_paused", "_sent", "_silence", "ticks")

    def __init__(self, law: Law, on_chunk: Callable[[bytes, bytes], None]) -> None:
        self._silence = SILENCE[law]
        self._on_chunk = on_chunk
        self._heard: list[bytes] = []
        self._sent: list[bytes] = []
        # Ticks since what was handed on last; the lists begin there.
        self._count = 0
        self._paused = False
        # The first of them that may be laid: what lies before belongs to a pause.
        self._open_from = 0
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

    def heard(self, frame: bytes, lead: int = 0) -> None:
        """20 ms whose turn is now, or in so many ticks: a session that hears promptly gets sound before its turn."""
        self._lay(self._heard, self._count - 1 + lead, frame)

    def sent(self, audio: bytes) -> None:
        """The sound of one packet, of one frame or more, that ends now."""
        first = self._count - len(audio) // FRAME_SAMPLES
        for number in range(self._count - first):
            at = number * FRAME_SAMPLES
            self._lay(self._sent, first + number, audio[at : at + FRAME_SAMPLES])

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
        self._open_from = self._count
        self._paused = False

    def finish(self) -> None:
        """Hand on the rest."""
        if self._count:
            self._hand_on(self._count)

    def _lay(self, side: list[bytes], at: int, frame: bytes) -> None:
        if self._paused or at < self._open_from or at >= self._count + AHEAD:
            return
        missing = at - len(side)
        if missing < 0:
            side[at] = frame
            return
        if missing:
            side.extend([self._silence] * missing)
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
        self._open_from = max(0, self._open_from - count)
        self._on_chunk(heard, sent)
