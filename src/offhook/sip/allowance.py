"""How many requests one dialog may send us: a peer that floods its own call must not cost the others theirs."""

from __future__ import annotations

__all__ = ["Allowance"]

BURST = 100.0
REFILL = 10.0
"""
Per second. Digits by INFO are the busiest thing that real peers send, some five a second; re-INVITEs come a few to a
call, and a storm of them is a fault or an attack.
"""
_COST = {"INVITE": 5.0, "UPDATE": 5.0}


class Allowance:
    """A bucket of requests. A re-INVITE or UPDATE counts for five: 20 at once, then two a second."""

    __slots__ = ("_at", "_left")

    def __init__(self, *, now: float) -> None:
        self._left = BURST
        self._at = now

    def take(self, method: str, *, now: float) -> bool:
        """Return whether a request may be served. Only the peer's BYE always is: it costs nothing afterwards."""
        self._left = min(BURST, self._left + REFILL * max(0.0, now - self._at))
        self._at = now
        cost = _COST.get(method, 1.0)
        if method != "BYE" and self._left < cost:
            return False
        self._left -= min(cost, self._left)
        return True
