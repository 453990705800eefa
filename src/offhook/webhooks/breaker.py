"""Sparing an endpoint that is down. Pure: time is handed in."""

from __future__ import annotations

__all__ = ["Breaker"]


class Breaker:
    """
    Opens after some failures in a row; then lets one attempt through after each pause, until one succeeds.

    It judges only what asks: attempts for a ringing phone do not ask (decision 9 of the design), since a caller cannot
    wait out a pause; but their outcome counts, so that the first call after an app's restart also frees what waited.
    """

    def __init__(self, *, failures: int = 5, pause: float = 2.0, longest: float = 60.0) -> None:
        self._threshold = failures
        self._first_pause = self._pause = pause
        self._longest = longest
        self._failures = 0
        self._probing = False
        self.open_until: float | None = None
        "When one attempt may pass; `None` while all may."

    def admit(self, now: float) -> bool:
        """Whether an attempt may start. While open, a True is for one attempt: report it with `probe=True`."""
        if self.open_until is None:
            return True
        if self._probing or now < self.open_until:
            return False
        self._probing = True
        return True

    @property
    def next_timer(self) -> float | None:
        """When `admit` will next say yes: 0 for at once, `None` while a probe is under way."""
        if self.open_until is None:
            return 0.0
        return None if self._probing else self.open_until

    def hasten(self, now: float) -> None:
        """Let the next attempt through now: somebody wants to see it."""
        if self.open_until is not None:
            self.open_until = min(self.open_until, now)

    def succeeded(self) -> None:
        self._failures = 0
        self._probing = False
        self._pause = self._first_pause
        self.open_until = None

    def failed(self, now: float, *, probe: bool = False) -> None:
        if self.open_until is None:
            self._failures += 1
            if self._failures >= self._threshold:
                self.open_until = now + self._pause
        elif probe:
            self._probing = False
            self._pause = min(2 * self._pause, self._longest)
            self.open_until = now + self._pause
