"""
The one pacer: every call's packet, every 20 ms, whatever else goes on.

Calls are spread over the slots of a ring that turns once in 20 ms. One timer wakes for the next slot that holds any.
Slots lie on a fixed grid of the monotonic clock, so lateness never adds up.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import add, sub
from typing import Final, Protocol

from offhook.audio.frames import FRAME_MS
from offhook.clock import Clock, SystemClock

__all__ = ["Paced", "Pacer", "PacerStats"]

SLOTS: Final = 20
"""Of a millisecond each: the loop is never held for longer than a twentieth of the calls take."""
MAX_CATCH_UP: Final = 3
"""Frames that a call sends at once after the process was held up; those beyond are left out."""
SHORTEST_S: Final = 0.001
EARLY_S: Final = 0.0005
"""A slot may be served this much before its time: loops round their timers to the millisecond, down as well as up."""
LOG_EVERY_S: Final = 10.0

_SLOT_S: Final = FRAME_MS / 1000 / SLOTS
_WHOLE: Final = math.lcm(*range(1, SLOTS // 2 + 1))
_CROWDS: Final = [
    [
        0 if other == slot else _WHOLE // min(abs(other - slot), SLOTS - abs(other - slot))
        for other in range(SLOTS)
    ]
    for slot in range(SLOTS)
]
"""How much a call in each slot crowds every other: the less, the farther away. In whole numbers, so that it adds up."""

_log = logging.getLogger("offhook.media")


class Paced(Protocol):
    """What the pacer drives. All methods must return at once; what they raise is logged, and harms no other."""

    def send(self, now: float) -> None:
        """Send the packet that is due."""

    def hear(self, now: float) -> None:
        """Deliver the frame that is due."""

    def skip(self, frames: int) -> None:
        """Leave frames out: the process was held up for too long."""


@dataclass(slots=True)
class PacerStats:
    """Counts since the start."""

    late_wakes: int = 0
    "Wakes that came more than a frame after their time."
    caught_up: int = 0
    "Rounds of the ring that were made up for at once."
    skipped: int = 0
    "Rounds that were left out."
    failures: int = 0
    "What calls raised. One in ten seconds is logged."
    latest_s: float = 0.0
    "The latest wake so far."


class Pacer:
    """Drives any number of calls from one timer of the running loop."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.stats = PacerStats()
        self._monotonic: Callable[[], float] = self.clock.monotonic
        self._ring: list[list[Paced]] = [[] for _ in range(SLOTS)]
        self._crowding = [0] * SLOTS
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._epoch = 0.0
        self._silent_until = 0.0
        # The slot that is to be served next, counted from the epoch.
        self._next = 0

    def __len__(self) -> int:
        return sum(map(len, self._ring))

    def start(self) -> None:
        """Bind to the running loop. With nothing to pace there is no timer."""
        self._loop = asyncio.get_running_loop()
        self._epoch = self._monotonic()
        self._next = 0

    def close(self) -> None:
        """Stop. What is still paced falls silent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for slot in self._ring:
            slot.clear()
        self._crowding = [0] * SLOTS
        self._loop = None

    def add(self, paced: Paced) -> None:
        """Serve a call from now on, in the emptiest slot, far from the other calls."""
        if self._loop is None:
            raise RuntimeError("the pacer is not started")
        _, _, emptiest = min(zip(map(len, self._ring), self._crowding, range(SLOTS), strict=True))
        self._ring[emptiest].append(paced)
        self._crowding = list(map(add, self._crowding, _CROWDS[emptiest]))
        if self._timer is None:
            # It was at rest: begin at the present, not where it stopped.
            self._next = self._slot_at(self._monotonic()) + 1
            self._arm(self._monotonic())

    def remove(self, paced: Paced) -> None:
        """Stop serving a call. Unknown ones are ignored."""
        for slot, calls in enumerate(self._ring):
            if paced in calls:
                calls.remove(paced)
                self._crowding = list(map(sub, self._crowding, _CROWDS[slot]))

    def _slot_at(self, now: float) -> int:
        return int((now + EARLY_S - self._epoch) / _SLOT_S)

    def _arm(self, now: float) -> None:
        ring, upcoming = self._ring, self._next
        for slot in range(upcoming, upcoming + SLOTS):
            if ring[slot % SLOTS]:
                self._next = slot
                delay = self._epoch + slot * _SLOT_S - now
                assert self._loop is not None
                self._timer = self._loop.call_later(max(delay, SHORTEST_S), self._wake)
                return
        self._timer = None

    def _wake(self) -> None:
        now = self._monotonic()
        current = self._slot_at(now)
        if current - self._next >= SLOTS:
            self._fall_behind(current, now)
        ring = self._ring
        while self._next <= current:
            slot = ring[self._next % SLOTS]
            self._next += 1
            if slot:
                self._serve(slot, now)
        if self._loop is not None:
            self._arm(self._monotonic())

    def _serve(self, slot: list[Paced], now: float) -> None:
        # All packets first: what hearing sets off must not make the neighbours late.
        # Calls may leave while they are served.
        calls = tuple(slot)
        for call in calls:
            try:
                call.send(now)
            except Exception:
                self.failed("sending", now)
        for call in calls:
            try:
                call.hear(now)
            except Exception:
                self.failed("handling", now)

    def failed(self, what: str, now: float) -> None:
        """Say what a call raised, inside an `except`, but not fifty times a second."""
        self.stats.failures += 1
        if now >= self._silent_until:
            self._silent_until = now + LOG_EVERY_S
            _log.exception("%s a frame failed", what, extra={"event": "media.frame.failed"})

    def _fall_behind(self, current: int, now: float) -> None:
        late = now - (self._epoch + self._next * _SLOT_S)
        rounds = (current - self._next) // SLOTS
        left_out = max(0, rounds - MAX_CATCH_UP)
        stats = self.stats
        stats.late_wakes += 1
        stats.latest_s = max(stats.latest_s, late)
        stats.caught_up += rounds - left_out
        stats.skipped += left_out
        if left_out:
            self._next += left_out * SLOTS
            for slot in self._ring:
                for call in slot:
                    try:
                        call.skip(left_out)
                    except Exception:
                        self.failed("skipping", now)
