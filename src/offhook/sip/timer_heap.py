"""One heap for every deadline of a stack, however many machines it runs."""

from __future__ import annotations

import heapq
import itertools
from typing import Protocol

__all__ = ["Timed", "TimerHeap"]


class Timed(Protocol):
    """A machine with timers as data. `armed` belongs to the heap: `None` at first."""

    armed: float | None

    def next_timer(self) -> float | None: ...
    def handle_timer(self, *, now: float) -> None: ...


class TimerHeap:
    """
    Deletion is lazy: an entry whose machine was armed for an earlier time, or has nothing due, is skipped.

    So arming costs nothing when a deadline moves back or goes away, which is what nearly all do.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timed]] = []
        self._order = itertools.count()

    def arm(self, timed: Timed) -> None:
        """Note the machine's next deadline. Call it after anything that may have set an earlier one."""
        deadline = timed.next_timer()
        if deadline is not None and (timed.armed is None or deadline < timed.armed):
            timed.armed = deadline
            heapq.heappush(self._heap, (deadline, next(self._order), timed))

    def next_timer(self) -> float | None:
        """Return the earliest deadline. It may come early, never late."""
        return self._heap[0][0] if self._heap else None

    def handle_timer(self, *, now: float) -> None:
        """Call every machine that is due."""
        while self._heap and self._heap[0][0] <= now:
            deadline, _, timed = heapq.heappop(self._heap)
            if timed.armed != deadline:
                continue
            timed.armed = None
            due = timed.next_timer()
            if due is not None and due <= now:
                timed.handle_timer(now=now)
            self.arm(timed)
