"""What waits for one endpoint, and what may start now. Pure: time is handed in."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .breaker import Breaker
from .schedule import Attempts, DeliveryState

__all__ = ["EndpointQueue", "QueueLimits", "Queued"]

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    urgent: int = 256
    "Attempts at once for ringing phones. A handler may await accept inside its delivery, so they last."
    ordinary: int = 16
    "Attempts at once for all else. They have their own places: they cannot take a ringing phone's."
    waiting: int = 10_000
    "Ordinary deliveries that wait for a retry or a place; more of them wait in the outbox alone."


@dataclass(eq=False, slots=True)
class Queued(Generic[Item]):
    """One delivery in the queue."""

    item: Item
    attempts: Attempts
    urgent: bool
    probe: bool = field(default=False, init=False)
    "Whether the attempt under way is the one that an open breaker let through."


class _Lane(Generic[Item]):
    """Deliveries of one kind by due time, with a number of places."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.in_flight = 0
        self._heap: list[tuple[float, int, Queued[Item]]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, queued: Queued[Item]) -> None:
        heapq.heappush(self._heap, (queued.attempts.due, next(self._order), queued))

    def due(self) -> float | None:
        """When the next delivery wants a place; `None` when none waits or there is no place."""
        while self._heap and not _holds(*self._heap[0]):
            heapq.heappop(self._heap)  # expired or hastened while it waited
        return self._heap[0][0] if self._heap and self.in_flight < self.places else None

    def peek(self) -> Queued[Item]:
        return self._heap[0][2]

    def pop(self) -> Queued[Item]:
        return heapq.heappop(self._heap)[2]


def _holds(due: float, order: int, queued: Queued[Item]) -> bool:
    return queued.attempts.state is DeliveryState.WAITING and queued.attempts.due == due


class EndpointQueue(Generic[Item]):
    """
    Deliveries for one endpoint.

    After each `add`, `finish` and at `next_timer`, start every delivery that `take` returns; report each with `finish`.
    """

    def __init__(self, limits: QueueLimits, breaker: Breaker) -> None:
        self._limits = limits
        self._breaker = breaker
        self._urgent: _Lane[Item] = _Lane(limits.urgent)
        self._ordinary: _Lane[Item] = _Lane(limits.ordinary)
        self._first: deque[Queued[Item]] = deque()

    def __len__(self) -> int:
        """How many are under way or wait; some of them may have expired meanwhile."""
        return self.in_flight + len(self._first) + len(self._urgent) + len(self._ordinary)

    @property
    def in_flight(self) -> int:
        return self._urgent.in_flight + self._ordinary.in_flight

    def add(self, queued: Queued[Item]) -> bool:
        """Take a new delivery. False when too many wait; one that is urgent is always taken."""
        if queued.urgent:
            self._first.append(queued)
        elif len(self._ordinary) >= self._limits.waiting:
            return False
        else:
            self._ordinary.push(queued)
        return True

    def resume(self, queued: Queued[Item]) -> None:
        """Take up what has failed, or waited in the outbox; it is never refused."""
        (self._urgent if queued.urgent else self._ordinary).push(queued)

    def hasten(self, queued: Queued[Item], now: float) -> None:
        """Have the next attempt of one that waits here now; an open breaker lets the one through that is first."""
        before = queued.attempts.due
        queued.attempts.hasten(now)
        if queued.attempts.due != before:  # else it is in its place
            self.resume(queued)
        self._breaker.hasten(now)

    @property
    def room(self) -> int:
        """How many more ordinary deliveries may wait."""
        return max(0, self._limits.waiting - len(self._ordinary))

    def overdue(self, now: float, most: int) -> list[Queued[Item]]:
        """Remove and return, after `take`, those that the breaker held until their time was over."""
        found: list[Queued[Item]] = []
        while len(found) < most and (due := self._ordinary.due()) is not None and due <= now:
            if not self._ordinary.peek().attempts.is_over(now):
                break
            found.append(self._ordinary.pop())
        return found

    def take(self, now: float) -> list[Queued[Item]]:
        """Return the deliveries whose next attempt starts now; they have begun."""
        started = []
        while self._first and self._urgent.in_flight < self._urgent.places:
            queued = self._first.popleft()
            if queued.attempts.state is DeliveryState.WAITING:
                started.append(self._start(queued, self._urgent))
        while (due := self._urgent.due()) is not None and due <= now:
            started.append(self._start(self._urgent.pop(), self._urgent))
        while (due := self._ordinary.due()) is not None and due <= now and self._breaker.admit(now):
            queued = self._ordinary.pop()
            queued.probe = self._breaker.open_until is not None
            started.append(self._start(queued, self._ordinary))
        return started

    def finish(self, queued: Queued[Item], *, delivered: bool, permanent: bool = False, now: float) -> bool:
        """Report an attempt's end. Return whether there will be another: `resume` it, here or later."""
        lane = self._urgent if queued.urgent else self._ordinary
        lane.in_flight -= 1
        probe, queued.probe = queued.probe, False
        if delivered:
            queued.attempts.succeed()
            self._breaker.succeeded()
            return False
        self._breaker.failed(now, probe=probe)
        return queued.attempts.fail(now, permanent=permanent)

    def is_crowded(self, queued: Queued[Item]) -> bool:
        """Whether one that has failed had better wait elsewhere, so that what is due later keeps nothing new out."""
        return not queued.urgent and 2 * len(self._ordinary) >= self._limits.waiting

    def next_timer(self) -> float | None:
        """When `take` next has something to return, as far as time decides it."""
        dues = []
        if (due := self._urgent.due()) is not None:
            dues.append(due)
        if (due := self._ordinary.due()) is not None and (opens := self._breaker.next_timer) is not None:
            dues.append(max(due, opens))
        return min(dues, default=None)

    @staticmethod
    def _start(queued: Queued[Item], lane: _Lane[Item]) -> Queued[Item]:
        lane.in_flight += 1
        queued.attempts.begin()
        return queued
