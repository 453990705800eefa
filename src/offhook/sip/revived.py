"""A call of an earlier process, which this one ends (decision 12 of the design). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from .exchange import ServerExchange
from .flow import Address
from .reasons import create_reason
from .transaction import State
from .uas import UasUsage

if TYPE_CHECKING:
    from .stack import Stack

__all__ = ["RevivedUsage"]


class RevivedUsage(UasUsage):
    """
    To be refused or hung up.

    What was kept of it may be a moment old: an INVITE that still rang by that may have been answered since. A peer that
    has a 2xx acknowledges no refusal (RFC 6026 section 7.2), so BYE follows the refusal that finds no ACK.
    """

    def __init__(self, stack: Stack, exchange: ServerExchange) -> None:
        super().__init__(stack, exchange)
        self._ack_due_at: float | None = None

    def resume(self, *, answered: bool, moved_to: Address | None, now: float) -> None:
        """Go on where another process stopped. `moved_to` is where the peer's last request by UDP came from."""
        if moved_to is not None and self.flow is not None:
            self._latest = replace(self.flow, remote=moved_to)
        self._answered = answered
        self._set_state("confirmed" if answered else "early", "revived", now)

    def refuse(
        self, status: int, reason: str | None = None, *, now: float, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Send a final response of 300 or more, and BYE when nobody acknowledges that."""
        if self._is_unanswered("refuse"):
            self._exchange.respond(status, reason, now=now, headers=headers)
            self._set_state("refused", f"refused with {status}", now)
            self._ack_due_at = now + 2 * self.stack.config.timers.t1
            self.stack.arm(self)

    def next_timer(self) -> float | None:
        deadlines = (super().next_timer(), self._ack_due_at)
        return min([deadline for deadline in deadlines if deadline is not None], default=None)

    def handle_timer(self, *, now: float) -> None:
        if self._ack_due_at is not None and now >= self._ack_due_at:
            self._ack_due_at = None
            if self._exchange.transaction.state is State.COMPLETED:
                text = "no ACK to the refusal: it may have been answered"
                self._send_bye("local_bye", create_reason("SIP", 503, text), text, now)
            else:
                self._end("local_bye", None, "the refusal was acknowledged", now)
        super().handle_timer(now=now)
