"""Which upstream to try next."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["SILENCE_S", "Failover"]

SILENCE_S = 5.0
"How long an upstream may keep a call waiting before the next one is tried."

MAX_LOSSES, LOSSES_S = 5, 60.0
"How many losses within how many seconds a call stands."


class Failover:
    """
    An ordered list of upstreams, from the first on while it rings, from the present one on after a loss.

    `attempts` gives their indexes. Each is tried once; what a refusal, 429, 5xx or silence means is the same: the next.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if not names:
            raise ValueError("no upstream is named")
        self.names = tuple(names)
        self.present: int | None = None
        self._lost: list[float] = []

    def attempts(self) -> list[int]:
        first = self.present or 0
        count = len(self.names)
        return [(first + step) % count for step in range(count)]

    def may_reopen(self, now: float) -> bool:
        """A connection was lost. One that is lost again and again is no voice: then give up."""
        self._lost = [at for at in self._lost if at > now - LOSSES_S] + [now]
        return len(self._lost) <= MAX_LOSSES

    def opened(self, index: int) -> None:
        self.present = index
