"""The called side of an INVITE (RFC 3261 section 13.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .dialog import Dialog
from .events import Cancelled
from .exchange import ServerExchange
from .message import Request, Response
from .reasons import reasons_of
from .transaction import LocalProtocolError
from .usage import InviteUsage

if TYPE_CHECKING:
    from .stack import Stack

__all__ = ["UasUsage"]

RING_AGAIN_AFTER = 60.0
"Proxies cancel an INVITE of which they hear nothing for three minutes (RFC 3261 section 13.3.1.1)."


class UasUsage(InviteUsage):
    """
    A call that came in.

    Intents on a leg that is over do nothing: its end and the intent can cross. Intents that make no sense in the leg's
    state, such as a second answer, raise `LocalProtocolError`.
    """

    role = "uas"

    def __init__(self, stack: Stack, exchange: ServerExchange) -> None:
        super().__init__(stack, exchange.request, exchange.flow)
        self.peer = exchange.peer
        self._exchange = exchange
        self.dialog: Dialog = Dialog.from_invite(exchange.request, exchange.to_tag)
        self._ringing: Response | None = None
        self._ring_again_at: float | None = None
        self._hold(exchange.flow)

    def ring(
        self,
        status: int = 180,
        reason: str | None = None,
        *,
        now: float,
        headers: Iterable[tuple[str, str]] = (),
        sdp: bytes = b"",
    ) -> None:
        """Send a provisional response, and again every minute until another response follows it."""
        if not 101 <= status <= 199:
            raise LocalProtocolError(f"{status} is not a status to ring with; use 101 to 199")
        if not self._is_unanswered("ring"):
            return
        content_type = "application/sdp" if sdp else None
        items = [("Contact", self.contact()), *headers]
        self._ringing = self._exchange.respond(
            status, reason, now=now, headers=items, body=sdp, content_type=content_type
        )
        self._ring_again_at = now + RING_AGAIN_AFTER
        self.stack.arm(self)
        if self.state == "calling":
            self._set_state("early", f"sent {status}", now)

    def answer(self, sdp: bytes, *, now: float, headers: Iterable[tuple[str, str]] = ()) -> None:
        """
        Send 200, and again until its ACK comes.

        `sdp` is the answer to the INVITE's offer, or an offer where the INVITE had none: its ACK has the answer then.
        """
        if not self._is_unanswered("answer"):
            return
        session = self.session.answer_headers(self.invite, sdp, now=now)
        items = [("Contact", self.contact()), *self.stack.capabilities, *session, *headers]
        content_type = "application/sdp" if sdp else None
        response = self._exchange.respond(200, now=now, headers=items, body=sdp, content_type=content_type)
        self._answered = True
        self._offers.answered(self.invite, 200, offers=bool(sdp))
        self._set_state("answered", "sent 200", now)
        self._await_ack(self._exchange, response, now)

    def refuse(
        self, status: int, reason: str | None = None, *, now: float, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Send a final response of 300 or more."""
        if not 300 <= status <= 699:
            raise LocalProtocolError(f"{status} is not a status to refuse with; use 300 to 699")
        if not self._is_unanswered("refuse"):
            return
        self._exchange.respond(status, reason, now=now, headers=headers)
        self._end("local_bye", None, f"refused with {status}", now)

    def hangup(self, *, now: float, reason_header: str | None = None) -> None:
        """
        End the leg: 480 while it rings, else BYE.

        A callee must not send BYE before the ACK to its 200 (RFC 3261 section 15): the BYE waits for it.
        """
        if self.state in ("calling", "early"):
            headers = [] if reason_header is None else [("Reason", reason_header)]
            self.refuse(480, now=now, headers=headers)
        elif self.state == "answered":
            self._hangup = self._hangup or (reason_header,)
        elif self.state == "confirmed":
            self._send_bye("local_bye", reason_header, "hung up by us", now)

    def next_timer(self) -> float | None:
        earliest, ring_again_at = super().next_timer(), self._ring_again_at
        if ring_again_at is None or self.state != "early":
            return earliest
        return ring_again_at if earliest is None else min(earliest, ring_again_at)

    def handle_timer(self, *, now: float) -> None:
        if self.state == "early" and self._ring_again_at is not None and now >= self._ring_again_at:
            assert self._ringing is not None
            self._ring_again_at = now + RING_AGAIN_AFTER
            self._exchange.repeat(self._ringing, now=now)
        super().handle_timer(now=now)

    def receive_cancel(self, reason_header: str | None, *, now: float) -> None:
        """Handle a CANCEL of the INVITE, which was answered 200 already; none if it crossed our final response."""
        if self.state in ("calling", "early"):
            self._exchange.respond(487, now=now)
            self._end("remote_bye", reason_header, "cancelled by the caller", now)
            self.emit(Cancelled(reason_header))

    def _receive_bye(self, request: Request, now: float) -> None:
        # Section 15.1.2: a BYE before the answer ends the INVITE as well.
        if self.state in ("calling", "early"):
            self.receive_cancel(reasons_of(request), now=now)
        else:
            super()._receive_bye(request, now)

    def _is_unanswered(self, intent: str) -> bool:
        if self.state == "ended":
            return False
        if self.state not in ("calling", "early"):
            raise LocalProtocolError(f"cannot {intent}: the leg is {self.state}")
        return True
