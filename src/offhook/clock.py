"""The time that drivers hand to pure code."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Two readings of time: one for deadlines, one for people."""

    def monotonic(self) -> float:
        """Return seconds that never go back. Deadlines and durations are in these."""

    def wall(self) -> float:
        """Return seconds since 1970-01-01 UTC, for time stamps that leave the process."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
