"""The INVITE server transaction (RFC 3261 section 17.2.1, RFC 6026 section 7.1)."""

from __future__ import annotations

from ..message import Request, Response
from .base import AckReceived, LocalProtocolError, Send, State, TimerValues, Transaction

__all__ = ["InviteServerTransaction"]


class InviteServerTransaction(Transaction):
    """
    Answers one INVITE.

    The owner must send a response at once (100 will do): the 200 ms grace of the RFC is not built in.
    A 2xx is repeated by the owner, not here.
    """

    __slots__ = ("_last", "_retransmit_after")

    def __init__(self, *, reliable: bool, timers: TimerValues) -> None:
        super().__init__(State.PROCEEDING, reliable=reliable, timers=timers)
        self._last: Response | None = None
        self._retransmit_after = timers.t1

    def receive_request(self, request: Request, *, now: float) -> None:
        """Handle a retransmitted INVITE, or an ACK with the INVITE's branch."""
        if request.method == "INVITE":
            # In ACCEPTED the 2xx belongs to the dialog, which retransmits it itself
            # (RFC 6026 section 7.1), so a repeated INVITE is absorbed.
            if self.state in (State.PROCEEDING, State.COMPLETED) and self._last:
                self._outputs.append(Send(self._last))
        elif request.method == "ACK" and self.state is State.COMPLETED:
            self.state = State.CONFIRMED
            self._outputs.append(AckReceived())
            self._linger("I", now, 0 if self._reliable else self._values.t4)
        elif request.method == "ACK" and self.state is State.ACCEPTED:
            self._outputs.append(AckReceived())

    def send_response(self, response: Response, *, now: float) -> None:
        """Send a response chosen by the owner. Raises `LocalProtocolError` after a final one."""
        is_2xx = 200 <= response.status < 300
        if self.state is not State.PROCEEDING and not (self.state is State.ACCEPTED and is_2xx):
            raise LocalProtocolError(f"cannot send {response.status} in {self.state.value}")
        self._last = response
        self._outputs.append(Send(response))
        if is_2xx and self.state is State.PROCEEDING:
            self.state = State.ACCEPTED
            self._timers = {"L": now + 64 * self._values.t1}
        elif response.status >= 300:
            self.state = State.COMPLETED
            self._timers = {"H": now + 64 * self._values.t1}
            if not self._reliable:
                self._timers["G"] = now + self._retransmit_after

    def _fire(self, name: str, deadline: float) -> None:
        if name == "G":
            assert self._last is not None
            self._outputs.append(Send(self._last))
            self._retransmit_after = min(2 * self._retransmit_after, self._values.t2)
            self._timers["G"] = deadline + self._retransmit_after
        else:
            self._terminate(timed_out=name == "H")
