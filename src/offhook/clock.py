"""The time that drivers hand to pure code."""

from __future__ import annotations

import datetime
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock", "iso_time"]


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


def iso_time(wall: float) -> str:
    """Return Unix seconds as ISO 8601 in UTC, to the millisecond."""
    moment = datetime.datetime.fromtimestamp(wall, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
