"""What the phone does with a REFER: takes it, plays the call to the target, and says how that went (RFC 3515)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from offhook.sip.leg import LegRequestError
from offhook.sip.message import Request, Response
from offhook.sip.status import reason_phrase

from .events import Report

__all__ = ["TransferLeg", "Transferee"]

_SUBSCRIPTION_S = 60


class TransferLeg(Protocol):
    """As much of `offhook.sip.endpoint.Leg` as a transferee needs."""

    def respond(self, request: Request, status: int, reason: str | None = None) -> None: ...

    async def request(
        self,
        method: str,
        *,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
        content_type: str,
    ) -> Response: ...


@dataclass
class Transferee:
    """Answers REFERs of one call. `outcome` is the final status that it reports of the call to the target."""

    leg: TransferLeg
    report: Report
    outcome: int = 200
    refuse: int | None = None
    "Answer REFER with this status instead, and go on."
    ring_s: float = 0.4

    async def take(self, request: Request) -> bool:
        """Answer a REFER and send all its NOTIFYs. Return whether the transfer, as played, succeeded."""
        target = request.headers.get("Refer-To") or ""
        status = self.refuse if self.refuse is not None else 202
        self.leg.respond(request, status)
        self.report("refer", target=target, answer=status)
        if self.refuse is not None:
            return False
        # RFC 3515 section 2.4.6: the id may be left out for the first REFER of a dialog; it never hurts.
        event = f"refer;id={request.cseq.number}"
        for index, step in enumerate((100, 180, self.outcome)):
            if index:
                await asyncio.sleep(self.ring_s)
            final = step >= 200
            state = "terminated;reason=noresource" if final else f"active;expires={_SUBSCRIPTION_S}"
            line = f"SIP/2.0 {step} {reason_phrase(step)}"
            try:
                answer = await self.leg.request(
                    "NOTIFY",
                    headers=(("Event", event), ("Subscription-State", state)),
                    body=f"{line}\r\n".encode(),
                    content_type="message/sipfrag;version=2.0",
                )
            except LegRequestError as error:
                self.report("note", text=str(error))
                return False
            self.report("notify", status=step, answer=answer.status)
        return 200 <= self.outcome < 300
