"""The INVITE client transaction (RFC 3261 section 17.1.1, RFC 6026 section 7.2)."""

from __future__ import annotations

from ..message import Request, Response
from .base import ResponseReceived, Send, State, TimerValues, Transaction, create_ack

__all__ = ["InviteClientTransaction"]


class InviteClientTransaction(Transaction):
    """
    Sends one INVITE, and acknowledges a final response of 300 or more.

    The ACK to a 2xx is the dialog's affair: every 2xx, repeated or forked, comes out as `ResponseReceived`.
    """

    __slots__ = ("_ack", "_given_up", "_retransmit_after", "request")

    def __init__(self, request: Request, *, reliable: bool, timers: TimerValues, now: float) -> None:
        super().__init__(State.CALLING, reliable=reliable, timers=timers)
        self.request = request
        self._ack: Request | None = None
        self._given_up = False
        self._retransmit_after = timers.t1
        self._outputs.append(Send(request))
        self._timers["B"] = now + 64 * timers.t1
        if not reliable:
            self._timers["A"] = now + timers.t1

    def receive_response(self, response: Response, *, now: float) -> None:
        """Handle any response with this transaction's branch and method."""
        if 200 <= response.status < 300:
            self._receive_2xx(response, now)
        elif self.state in (State.CALLING, State.PROCEEDING):
            self._outputs.append(ResponseReceived(response))
            if response.status < 200:
                self.state = State.PROCEEDING
                # A 1xx ends the wait for a first response, not the wait that `give_up` bounds.
                self._timers = {"B": self._timers["B"]} if self._given_up else {}
            else:
                self.state = State.COMPLETED
                self._ack = create_ack(self.request, response)
                self._outputs.append(Send(self._ack))
                self._linger("D", now, 0 if self._reliable else max(32.0, 64 * self._values.t1))
        elif self.state is State.COMPLETED and response.status >= 300:
            assert self._ack is not None
            self._outputs.append(Send(self._ack))

    def give_up(self, *, now: float) -> None:
        """
        Wait 64*T1 for a final response, not for ever: a CANCEL (RFC 3261 section 9.1) or a BYE was sent.

        `Terminated(timed_out=True)` follows when none comes.
        """
        if self.state in (State.CALLING, State.PROCEEDING):
            self._timers["B"] = now + 64 * self._values.t1
            self._given_up = True

    def _receive_2xx(self, response: Response, now: float) -> None:
        if self.state in (State.CALLING, State.PROCEEDING):
            self.state = State.ACCEPTED
            self._timers = {"M": now + 64 * self._values.t1}
        if self.state is State.ACCEPTED:
            self._outputs.append(ResponseReceived(response))

    def _fire(self, name: str, deadline: float) -> None:
        if name == "A":
            self._outputs.append(Send(self.request))
            # Unlike timer E, timer A doubles without a ceiling (section 17.1.1.2).
            self._retransmit_after *= 2
            self._timers["A"] = deadline + self._retransmit_after
        else:
            self._terminate(timed_out=name == "B")
