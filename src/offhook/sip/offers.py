"""
Whose turn it is to offer (RFC 3261 section 14, RFC 3311 section 5, RFC 3264 section 4).

Pure. One offer at a time in a dialog: this says what a request that crosses another one is answered.
"""

from __future__ import annotations

from collections.abc import Callable

from .headers import HeaderError
from .message import Request
from .multipart import find_body
from .screening import Refusal

__all__ = ["Offers", "has_sdp"]

MAX_RETRY_AFTER = 10
"Seconds; what RFC 3261 section 14.2 draws a Retry-After from, 0 included."


class Offers:
    """The offers of one dialog that have no answer yet."""

    def __init__(self, *, new_number: Callable[[int], int]) -> None:
        """`new_number(n)` gives a random number below n."""
        self._new_number = new_number
        self._theirs: list[Request] = []
        self._ours_in_2xx: set[int] = set()

    @property
    def are_theirs(self) -> bool:
        """Whether a re-INVITE or UPDATE of the peer's is being answered."""
        return bool(self._theirs)

    @property
    def await_ack(self) -> bool:
        """Whether an offer of ours, made in a 2xx, has no answer yet: the ACK brings it."""
        return bool(self._ours_in_2xx)

    def refuse(self, request: Request, *, unanswered: bool, ours: bool) -> Refusal | None:
        """
        Return what a re-INVITE or UPDATE is refused with at once, or `None` to let it be answered.

        `unanswered` says that the INVITE of a call that came in has no final response yet, `ours` that an INVITE or
        an offer of this side is on its way.
        """
        if request.method == "UPDATE" and not has_sdp(request):
            # It offers nothing: a new Contact or a session timer, good at any time (RFC 3311 section 5.2).
            same = any(other.method == "UPDATE" for other in self._theirs)
            return self._busy() if same else None
        if self._theirs or unanswered:
            return self._busy()
        return Refusal(491) if ours or self._ours_in_2xx else None

    def begin(self, request: Request) -> None:
        """Note that a request of the peer's is being answered."""
        self._theirs.append(request)

    def answered(self, request: Request, status: int, *, offers: bool) -> None:
        """Note the final response; `offers` says that it has SDP."""
        self._theirs = [other for other in self._theirs if other is not request]
        if request.method == "INVITE" and status < 300 and offers and not has_sdp(request):
            self._ours_in_2xx.add(request.cseq.number)

    def acknowledged(self, cseq: int) -> None:
        """Note the ACK to the 2xx of INVITE number `cseq`, and with it the answer, if it has any."""
        self._ours_in_2xx.discard(cseq)

    def _busy(self) -> Refusal:
        after = self._new_number(MAX_RETRY_AFTER + 1)
        return Refusal(500, headers=(("Retry-After", str(after)),))


def has_sdp(message: Request) -> bool:
    """Return whether a request has SDP, also in a multipart body; a body that cannot be read counts as an offer."""
    if not message.body:
        return False
    try:
        return find_body(message, "application/sdp") is not None
    except HeaderError:
        return True
