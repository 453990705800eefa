"""The sound of the caller's present turn, kept until somebody has it for certain."""

from __future__ import annotations

from collections import deque

__all__ = ["RelayCaller"]

LEAD_S = 1.0
"Kept from before the upstream says that the caller speaks: it says so late."
MAX_TURN_S = 15.0


class RelayCaller:
    """
    Takes each 20 ms of the caller's sound.

    An upstream that is lost takes the turn with it that it heard; with this the next one can hear it.
    """

    def __init__(self, bytes_per_ms: int) -> None:
        self._bytes_per_s = bytes_per_ms * 1000
        self._lead: deque[bytes] = deque(maxlen=int(LEAD_S * 50))
        self._turn: list[bytes] = []
        self._length = 0
        self.speaking = False

    def hear(self, audio: bytes) -> None:
        self._lead.append(audio)
        if self.speaking:
            self._add(audio)

    def start(self) -> None:
        """The caller began to speak, a little ago."""
        self.speaking = True
        self._turn, self._length = [], 0
        for audio in self._lead:
            self._add(audio)

    def stop(self) -> None:
        """The turn is over; its sound stays until the next one or `forget`."""
        self.speaking = False

    def forget(self) -> None:
        """The turn was answered."""
        if not self.speaking:
            self._turn, self._length = [], 0

    @property
    def sound(self) -> bytes:
        """What was heard of the turn so far."""
        return b"".join(self._turn)

    def _add(self, audio: bytes) -> None:
        if self._length < MAX_TURN_S * self._bytes_per_s:
            self._turn.append(audio)
            self._length += len(audio)
