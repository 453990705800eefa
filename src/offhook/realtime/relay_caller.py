"""The sound of the caller's present turn, kept until somebody has it for certain."""

from __future__ import annotations

from collections import deque

__all__ = ["RelayCaller"]

LEAD_S = 1.0
"Kept from before the upstream says that the caller speaks: it says so late."
MAX_TURN_S = 15.0
CARRIED_S = 2.0
"How long an upstream that was given a turn which another one had begun may take to find that somebody speaks."


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
        self._carried = 0
        self._ended = False
        self.speaking = False
        "Whether a turn has begun that was not committed."

    def hear(self, audio: bytes) -> None:
        self._lead.append(audio)
        if self.speaking and not self._ended:
            self._add(audio)
            if self._carried:
                self._carried -= 1
                if not self._carried:
                    self.discard()

    def carry(self) -> None:
        """Another upstream was told what there is of a turn that is not over, and will say that it has started."""
        if self.speaking:
            self._carried = int(CARRIED_S * 50)
            self._ended = False

    def start(self) -> None:
        """The caller began to speak, a little ago."""
        self.speaking, self._ended = True, False
        if self._carried:
            self._carried = 0
            return
        self._turn, self._length = [], 0
        for audio in self._lead:
            self._add(audio)

    def end(self) -> None:
        """The caller is silent; should the upstream be lost before it commits the turn, nobody has it."""
        self._ended = True

    def stop(self) -> None:
        """The turn is over, and committed; its sound stays until the next one or `forget`."""
        self.speaking = False
        self._carried = 0

    def discard(self) -> None:
        """It was no turn after all."""
        self.stop()
        self.forget()

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
