"""When a webhook is tried again (API row W15, decision 9 of the design). Pure: time and chance are handed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["BACKOFF", "URGENT", "Attempts", "DeliveryState", "RetryPolicy"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Delays between attempts, in seconds."""

    first: float
    "After the first failure; each later one doubles it."
    longest: float
    "No delay is longer."
    give_up_after: float
    "Since the event. No attempt starts later."
    spread: float = 0.0
    "How far chance may move a delay, either way: 0.2 is a fifth."

    def delay(self, failures: int, draw: float) -> float:
        """Return the delay after this many failures. `draw` is a number from 0 to 1."""
        # 2**63 s is past every `longest`, and larger powers would not fit a float in the end.
        planned = min(self.first * 2.0 ** min(failures - 1, 63), self.longest)
        return planned * (1 + self.spread * (2 * draw - 1))


URGENT = RetryPolicy(first=0.5, longest=4.0, give_up_after=180.0)
"For a phone that rings. Whoever announced the event ends it sooner; 180 s is timer C (RFC 3261 section 16.6)."
BACKOFF = RetryPolicy(first=1.0, longest=6 * 3600.0, give_up_after=72 * 3600.0, spread=0.2)
"For all else. The spread keeps a day's events from coming back in one wave."


class DeliveryState(StrEnum):
    WAITING = "waiting"
    "For `due`."
    ATTEMPTING = "attempting"
    DELIVERED = "delivered"
    EXPIRED = "expired"
    "Somebody decided that it is no longer news."
    EXHAUSTED = "exhausted"
    "It cannot succeed, or the time is over."


class Attempts:
    """
    One event on its way to one endpoint: at most one attempt at a time.

    Call `begin` at or after `due`, then `succeed` or `fail` with how it went.
    """

    def __init__(self, policy: RetryPolicy, *, now: float, draw: Callable[[], float]) -> None:
        self.state = DeliveryState.WAITING
        self.number = 0
        "Of the attempt that is under way or was last; 0 before the first."
        self.due = now
        self._policy = policy
        self._draw = draw
        self._give_up_at = now + policy.give_up_after
        self._expired = False

    @classmethod
    def resume(
        cls, policy: RetryPolicy, *, number: int, due: float, give_up_at: float, draw: Callable[[], float]
    ) -> Attempts:
        """Go on after so many attempts that another process made."""
        attempts = cls(policy, now=due, draw=draw)
        attempts.number = number
        attempts._give_up_at = give_up_at
        return attempts

    def is_over(self, now: float) -> bool:
        """Whether no attempt should start any more."""
        return now > self._give_up_at

    def hasten(self, now: float) -> None:
        """Have the next attempt now."""
        assert self.state is DeliveryState.WAITING
        self.due = min(self.due, now)

    def begin(self) -> int:
        """Start an attempt and return its number, from 1."""
        assert self.state is DeliveryState.WAITING
        self.state = DeliveryState.ATTEMPTING
        self.number += 1
        return self.number

    def succeed(self) -> None:
        assert self.state is DeliveryState.ATTEMPTING
        self.state = DeliveryState.DELIVERED

    def fail(self, now: float, *, permanent: bool = False) -> bool:
        """Return whether there will be another attempt, at `due`. A `permanent` failure has none."""
        assert self.state is DeliveryState.ATTEMPTING
        due = now + self._policy.delay(self.number, self._draw())
        if self._expired:
            self.state = DeliveryState.EXPIRED
        elif permanent or due > self._give_up_at:
            self.state = DeliveryState.EXHAUSTED
        else:
            self.state = DeliveryState.WAITING
            self.due = due
        return self.state is DeliveryState.WAITING

    def expire(self) -> None:
        """Try no more. An attempt under way may finish, and counts if it succeeds."""
        self._expired = True
        if self.state is DeliveryState.WAITING:
            self.state = DeliveryState.EXPIRED

    def give_up(self) -> None:
        """Try no more, because nobody can."""
        self.state = DeliveryState.EXHAUSTED
