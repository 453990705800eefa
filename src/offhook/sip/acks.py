"""The ACKs to the 2xx that answer our INVITEs (RFC 3261 section 13.2.2.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from offhook.trace import RoutingDecision

from .dialog import Dialog
from .flow import Flow
from .message import Response
from .route import Plan, Way

if TYPE_CHECKING:
    from .usage import InviteUsage

__all__ = ["Acks"]

MAX_KEPT = 16
"ACKs kept for repeats of their 2xx, which come for 32 s. A call of days refreshes itself hundreds of times."


@dataclass(slots=True)
class _Ack:
    dialog: Dialog
    cseq: int
    is_sought: bool = False
    "A way for it is being looked for."
    flow: Flow | None = None
    data: bytes = b""


class Acks:
    """Sends one for each 2xx, and again for every repeat of it."""

    def __init__(self, usage: InviteUsage, *, plan: Callable[[Dialog], Plan]) -> None:
        self._usage = usage
        self._plan = plan
        self._by_2xx: dict[tuple[str, int], _Ack] = {}

    def send(self, dialog: Dialog, cseq: int, *, now: float) -> None:
        """Acknowledge the 2xx to INVITE number `cseq`. The dialog must have taken the 2xx's Contact by then."""
        ack = self._by_2xx[dialog.remote_tag, cseq] = _Ack(dialog, cseq)
        if len(self._by_2xx) > MAX_KEPT:
            del self._by_2xx[next(iter(self._by_2xx))]
        self._seek(ack, now)

    def repeat(self, response: Response, *, now: float) -> bool:
        """Acknowledge a repeated 2xx; `False` if it is not a repeat."""
        ack = self._by_2xx.get((response.to.tag or "", response.cseq.number))
        if ack is None:
            return False
        stack = self._usage.stack
        if ack.flow is not None and stack.is_open(ack.flow):
            stack.transmit(ack.flow, ack.data, self._usage, now=now)
        elif not ack.is_sought:
            self._seek(ack, now)
        return True

    def _seek(self, ack: _Ack, now: float) -> None:
        usage, stack = self._usage.itself(), self._usage.stack

        def found(way: Way, now: float) -> None:
            ack.is_sought = False
            if way.flow is None:
                text = "; ".join(str(attempt) for attempt in way.attempts)
                usage.note(RoutingDecision(now, "ACK", f"could not send ACK: {text}"))
                return
            request = ack.dialog.create_ack(ack.cseq)
            request.headers.add("User-Agent", stack.config.user_agent)
            request.headers.prepend("Via", stack.via_for(way.flow))
            ack.flow, ack.data = way.flow, bytes(request)
            stack.transmit(ack.flow, ack.data, usage, now=now)

        ack.is_sought = True
        stack.ways.find(self._plan(ack.dialog), usage.flow, found, now=now, tls_hostname=usage.tls_hostname)
