"""The 2xx to INVITEs that wait for their ACK (RFC 3261 section 13.3.1.4)."""

from __future__ import annotations

from dataclasses import dataclass

from .exchange import ServerExchange
from .message import Response
from .transaction import TimerValues

__all__ = ["Acceptances"]


@dataclass(slots=True)
class _Acceptance:
    exchange: ServerExchange
    response: Response
    interval: float
    next_at: float
    give_up_at: float


class Acceptances:
    """Repeats each 2xx, T1 doubling to T2, on any transport, until `acknowledge` or for 64*T1."""

    def __init__(self, timers: TimerValues) -> None:
        self._values = timers
        self._by_cseq: dict[int, _Acceptance] = {}

    def __bool__(self) -> bool:
        return bool(self._by_cseq)

    def add(self, exchange: ServerExchange, response: Response, *, now: float) -> None:
        """Note that `response` was just sent."""
        t1 = self._values.t1
        acceptance = _Acceptance(exchange, response, t1, now + t1, now + 64 * t1)
        self._by_cseq[exchange.request.cseq.number] = acceptance

    def acknowledge(self, cseq: int) -> ServerExchange | None:
        """Return the exchange of INVITE number `cseq`, which is not repeated any more; `None` for a stray ACK."""
        acceptance = self._by_cseq.pop(cseq, None)
        return None if acceptance is None else acceptance.exchange

    def clear(self) -> None:
        self._by_cseq.clear()

    def next_timer(self) -> float | None:
        if not self._by_cseq:
            return None
        return min((min(a.next_at, a.give_up_at) for a in self._by_cseq.values()), default=None)

    def handle_timer(self, *, now: float) -> bool:
        """Repeat what is due; return whether one was never acknowledged."""
        for cseq, acceptance in list(self._by_cseq.items()):
            if now >= acceptance.give_up_at:
                del self._by_cseq[cseq]
                return True
            if now >= acceptance.next_at:
                acceptance.exchange.repeat(acceptance.response, now=now)
                acceptance.interval = min(2 * acceptance.interval, self._values.t2)
                acceptance.next_at += acceptance.interval
        return False
