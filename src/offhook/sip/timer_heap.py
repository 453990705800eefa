"""One heap for every deadline of a stack, however many machines it runs."""

from __future__ import annotations

import heapq
import itertools
from typing import Protocol

__all__ = ["Alarm", "Timed", "TimerHeap"]

MIN_DEAD = 1000
"Alarms without a machine that are kept at least; above it, at most as many as there are others."


class Alarm:
    """When a machine is to be called; without a machine, nobody is."""

    __slots__ = ("at", "timed")

    def __init__(self, at: float, timed: Timed) -> None:
        self.at = at
        self.timed: Timed | None = timed


class Timed(Protocol):
    """A machine with timers as data. `armed` belongs to the heap: `None` at first."""

    armed: Alarm | None

    def next_timer(self) -> float | None: ...
    def handle_timer(self, *, now: float) -> None: ...


class TimerHeap:
    """
    Deletion is lazy: an alarm that was replaced by an earlier one, or whose machine has nothing due, is skipped.

    So arming costs nothing when a deadline moves back or goes away, which is what nearly all do. A machine that is
    done for must be disarmed: its alarm would keep it in memory until then, and a session timer's is half an hour off.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._dead = 0

    def __len__(self) -> int:
        """How many alarms are kept, those without a machine among them."""
        return len(self._heap)

    def arm(self, timed: Timed) -> None:
        """Note the machine's next deadline. Call it after anything that may have set an earlier one."""
        deadline = timed.next_timer()
        if deadline is not None and (timed.armed is None or deadline < timed.armed.at):
            self.disarm(timed)
            timed.armed = Alarm(deadline, timed)
            heapq.heappush(self._heap, (deadline, next(self._order), timed.armed))

    def disarm(self, timed: Timed) -> None:
        """Let go of a machine."""
        if timed.armed is not None:
            timed.armed.timed = None
            timed.armed = None
            self._dead += 1
            if self._dead > max(MIN_DEAD, len(self._heap) / 2):
                self._heap = [entry for entry in self._heap if entry[2].timed is not None]
                heapq.heapify(self._heap)
                self._dead = 0

    def next_timer(self) -> float | None:
        """Return the earliest deadline. It may come early, never late."""
        while self._heap and self._heap[0][2].timed is None:
            heapq.heappop(self._heap)
            self._dead -= 1
        return self._heap[0][0] if self._heap else None

    def handle_timer(self, *, now: float) -> None:
        """Call every machine that is due."""
        while self._heap and self._heap[0][0] <= now:
            timed = heapq.heappop(self._heap)[2].timed
            if timed is None:
                self._dead -= 1
                continue
            timed.armed = None
            due = timed.next_timer()
            if due is not None and due <= now:
                timed.handle_timer(now=now)
            self.arm(timed)
