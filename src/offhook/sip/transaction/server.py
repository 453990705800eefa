"""The non-INVITE server transaction (RFC 3261 section 17.2.2)."""

from __future__ import annotations

from ..message import Request, Response
from .base import LocalProtocolError, Send, State, TimerValues, Transaction

__all__ = ["ServerTransaction"]


class ServerTransaction(Transaction):
    """Answers one request other than INVITE and ACK."""

    __slots__ = ("_last",)

    def __init__(self, *, reliable: bool, timers: TimerValues) -> None:
        super().__init__(State.TRYING, reliable=reliable, timers=timers)
        self._last: Response | None = None

    def receive_request(self, request: Request, *, now: float) -> None:
        """Handle a retransmission: answer as before, or absorb it while there is no answer."""
        if self._last is not None and self.state is not State.TERMINATED:
            self._outputs.append(Send(self._last))

    def send_response(self, response: Response, *, now: float) -> None:
        """Send a response chosen by the owner. Raises `LocalProtocolError` after a final one."""
        if self.state not in (State.TRYING, State.PROCEEDING):
            raise LocalProtocolError(f"cannot send {response.status} in {self.state.value}")
        self._last = response
        self._outputs.append(Send(response))
        if response.status < 200:
            self.state = State.PROCEEDING
        else:
            self.state = State.COMPLETED
            self._linger("J", now, 0 if self._reliable else 64 * self._values.t1)

    def _fire(self, name: str, deadline: float) -> None:
        self._terminate()
