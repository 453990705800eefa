"""The non-INVITE client transaction (RFC 3261 section 17.1.2)."""

from __future__ import annotations

from ..message import Request, Response
from .base import ResponseReceived, Send, State, TimerValues, Transaction

__all__ = ["ClientTransaction"]


class ClientTransaction(Transaction):
    """Sends one request other than INVITE and ACK."""

    __slots__ = ("_retransmit_after", "request")

    def __init__(self, request: Request, *, reliable: bool, timers: TimerValues, now: float) -> None:
        super().__init__(State.TRYING, reliable=reliable, timers=timers)
        self.request = request
        self._retransmit_after = timers.t1
        self._outputs.append(Send(request))
        self._timers["F"] = now + 64 * timers.t1
        if not reliable:
            self._timers["E"] = now + timers.t1

    def receive_response(self, response: Response, *, now: float) -> None:
        """Handle any response with this transaction's branch and method."""
        if self.state not in (State.TRYING, State.PROCEEDING):
            return
        self._outputs.append(ResponseReceived(response))
        if response.status < 200:
            self.state = State.PROCEEDING
        else:
            self.state = State.COMPLETED
            self._linger("K", now, 0 if self._reliable else self._values.t4)

    def _fire(self, name: str, deadline: float) -> None:
        if name == "E":
            self._outputs.append(Send(self.request))
            # After a provisional response the pace is T2 (section 17.1.2.2).
            in_trying = self.state is State.TRYING
            after = min(2 * self._retransmit_after, self._values.t2) if in_trying else self._values.t2
            self._retransmit_after = after
            self._timers["E"] = deadline + after
        else:
            self._terminate(timed_out=name == "F")
