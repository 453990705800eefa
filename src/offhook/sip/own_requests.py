"""
The requests that a leg sends in its dialog, apart from ACK, BYE and CANCEL: when each may go, and when again.

Pure. What has to wait waits in order: for the ACK to our 200, for the end of an offer of the peer's, or for the random
time after a 491 (RFC 3261 section 14.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .acks import Acks
from .credentials import Authentication
from .dialog import Dialog
from .events import Replied
from .exchange import ClientExchange
from .headers import Headers
from .message import Request, Response
from .refer import Refer
from .route import Attempt
from .transaction import LocalProtocolError

if TYPE_CHECKING:
    from .usage import InviteUsage

__all__ = ["OwnRequests"]

MAX_TRIES = 5
"Sendings of one request; a peer that says 491 for ever must not keep us busy for ever."
MAX_RETRY_AFTER = 10

# Requests whose Contact is the peer's new target, or must be there (RFC 3261 table 2, RFC 3311, 3515, 6665).
_WITH_CONTACT = frozenset(("INVITE", "UPDATE", "REFER", "SUBSCRIBE", "NOTIFY"))
# A 481 to these says that a subscription is gone, not the call (RFC 5057 section 5.1).
_OF_SUBSCRIPTIONS = frozenset(("REFER", "NOTIFY", "SUBSCRIBE"))

OnResponse = Callable[[ClientExchange, Response, float], None]
OnFailure = Callable[[ClientExchange, str, tuple[Attempt, ...], float], None]
Start = Callable[[Request, Dialog, OnResponse, OnFailure, float], ClientExchange]


@dataclass(slots=True, eq=False)
class _OwnRequest:
    key: int
    method: str
    headers: list[tuple[str, str]]
    body: bytes
    content_type: str | None
    refer: Refer | None
    authentication: Authentication
    tries: int = 0
    due: float | None = None
    "When it may be sent again."

    @property
    def offers(self) -> bool:
        """Whether an answer to an offer is due: an INVITE without SDP asks for one."""
        return self.method == "INVITE" or (self.method == "UPDATE" and bool(self.body))


class OwnRequests:
    """Each gets a key, and exactly one `Replied` with it."""

    def __init__(
        self,
        usage: InviteUsage,
        *,
        start: Start,
        acks: Acks,
        on_refer_replied: Callable[[], None],
        on_gone: Callable[[int, str, float], None],
    ) -> None:
        """`on_gone` is told, by status, words and time, that the peer does not know the dialog any more."""
        self._usage = usage
        self._start = start
        self._acks = acks
        self._on_refer_replied = on_refer_replied
        self._on_gone = on_gone
        self._waiting: list[_OwnRequest] = []
        self._offering: set[int] = set()
        self._invites: dict[int, ClientExchange] = {}
        self._cancel_at: dict[int, float] = {}
        "INVITEs that got a provisional response, which ends timer B, and when they are cancelled."

    @property
    def offer(self) -> bool:
        """Whether an INVITE, or an UPDATE with an offer, is on its way and has no final response."""
        return bool(self._offering)

    def add(
        self,
        method: str,
        *,
        headers: list[tuple[str, str]],
        body: bytes,
        content_type: str | None,
        refer: Refer | None,
        now: float,
        key: int | None = None,
    ) -> int:
        """Send a request as soon as it may be sent; return its key. Raises `LocalProtocolError`, `HeaderError`."""
        usage = self._usage
        if usage.dialog is None or usage.state not in ("answered", "confirmed"):
            raise LocalProtocolError(f"no dialog to send {method} in: the leg is {usage.state}")
        # Judge the headers now, where the caller can see the fault.
        Headers(headers)
        authentication = usage.new_authentication()
        own = _OwnRequest(
            key or usage.stack.next_key(), method, headers, body, content_type, refer, authentication
        )
        self._waiting.append(own)
        self.send_waiting(now=now)
        return own.key

    def stop_waiting(self, key: int) -> bool:
        """Drop a request that waits to be sent; `False` if it was sent and does not wait to be repeated."""
        before = len(self._waiting)
        self._waiting = [own for own in self._waiting if own.key != key]
        return len(self._waiting) < before

    def send_waiting(self, *, now: float) -> None:
        """Send what may be sent now."""
        for own in list(self._waiting):
            if own in self._waiting and self._may_send(own, now):
                self._waiting.remove(own)
                self._send(own, now)

    def end(self, *, now: float) -> None:
        """
        The leg is over: nothing that waits will be sent.

        An INVITE on its way has 64*T1 left: the peer repeats no 2xx to it once it knows that the call is over.
        """
        for exchange in self._invites.values():
            exchange.give_up(now=now)
        self._invites.clear()
        self._cancel_at.clear()
        waiting, self._waiting = self._waiting, []
        for own in waiting:
            if own.refer is not None:
                own.refer.transaction_failed("the call ended before it could be sent", was_sent=False)
            self._usage.emit(Replied(own.key, None, "the leg ended"))

    def next_timer(self) -> float | None:
        if not self._waiting and not self._cancel_at:
            return None
        due = (own.due for own in self._waiting if own.due is not None)
        return min((*due, *self._cancel_at.values()), default=None)

    def handle_timer(self, *, now: float) -> None:
        for key in [key for key, at in self._cancel_at.items() if now >= at]:
            del self._cancel_at[key]
            self._invites[key].cancel(now=now)
        for own in self._waiting:
            if own.due is not None and now >= own.due:
                own.due = None
        self.send_waiting(now=now)

    def _may_send(self, own: _OwnRequest, now: float) -> bool:
        if self._usage.state != "confirmed" or own.due is not None:
            return False
        # RFC 3261 section 14.1: no INVITE while another one is under way, in either direction.
        return not own.offers or not (self._offering or self._usage.answers_offer)

    def _send(self, own: _OwnRequest, now: float) -> None:
        usage = self._usage
        dialog = usage.dialog
        assert dialog is not None
        items = list(own.headers)
        if own.method in _WITH_CONTACT:
            items.insert(0, ("Contact", usage.contact()))
        items += usage.session.request_headers(own.method)
        items.append(("User-Agent", usage.stack.config.user_agent))
        request = dialog.create_request(
            own.method, headers=items, body=own.body, content_type=own.content_type
        )
        own.authentication.sign(request)
        own.tries += 1
        if own.refer is not None:
            own.refer.cseq = request.cseq.number
        if own.offers:
            self._offering.add(own.key)

        def on_response(exchange: ClientExchange, response: Response, now: float) -> None:
            self._receive_reply(own, dialog, response, now)

        def on_failure(
            exchange: ClientExchange, reason: str, attempts: tuple[Attempt, ...], now: float
        ) -> None:
            self._settle(own)
            if own.refer is not None:
                text = "; ".join((reason, *map(str, attempts)))
                own.refer.transaction_failed(text, was_sent=exchange.transaction is not None)
                self._on_refer_replied()
            usage.emit(Replied(own.key, None, reason, attempts))
            self.send_waiting(now=now)

        exchange = self._start(request, dialog, on_response, on_failure, now)
        if own.method == "INVITE" and own.key in self._offering:
            self._invites[own.key] = exchange

    def _settle(self, own: _OwnRequest) -> None:
        self._offering.discard(own.key)
        self._invites.pop(own.key, None)
        self._cancel_at.pop(own.key, None)

    def _receive_reply(self, own: _OwnRequest, dialog: Dialog, response: Response, now: float) -> None:
        if own.authentication.takes(response):
            self._settle(own)
            self._waiting.insert(0, own)
            self.send_waiting(now=now)
            return
        if own.refer is not None:
            own.refer.receive_response(response, now=now)
        if response.status < 200:
            self._limit(own, now)
            return
        is_2xx = response.status < 300
        if own.method == "INVITE" and is_2xx and self._acks.repeat(response, now=now):
            return
        self._settle(own)
        if is_2xx and own.method in ("INVITE", "UPDATE"):
            dialog.refresh_target(response)
            if own.method == "INVITE":
                # To the Contact of its 2xx (section 13.2.2.4), so after the line above.
                self._acks.send(dialog, response.cseq.number, now=now)
            self._usage.session.receive_2xx(response, own.body, now=now)
        if (after := self._retry_after(own, response)) is not None:
            own.due = now + after
            self._waiting.insert(0, own)
            self._usage.rearm()
            return
        self._usage.emit(Replied(own.key, response))
        if own.refer is not None:
            self._on_refer_replied()
        # RFC 3261 section 12.2.1.2: the peer does not know the dialog, or never answers.
        if (
            response.status in (481, 408)
            and self._usage.state == "confirmed"
            and own.method not in _OF_SUBSCRIPTIONS
        ):
            self._on_gone(response.status, f"the peer answered {response.status} to {own.method}", now)
        self.send_waiting(now=now)

    def _limit(self, own: _OwnRequest, now: float) -> None:
        """Wait no longer for who is at work than for who says nothing: until then nobody else can offer."""
        if own.key in self._invites and own.key not in self._cancel_at:
            self._cancel_at[own.key] = now + 64 * self._usage.stack.config.timers.t1
            self._usage.rearm()

    def _retry_after(self, own: _OwnRequest, response: Response) -> float | None:
        """Return when to send an offer again that crossed one of the peer's; `None`: not at all."""
        if own.method not in ("INVITE", "UPDATE") or self._usage.state != "confirmed":
            return None
        if own.tries >= MAX_TRIES:
            return None
        if response.status == 491:
            # Section 14.1, in steps of 10 ms: who made the Call-ID waits longer than the other can.
            if self._usage.role == "uac":
                return 2.1 + self._usage.stack.new_number(191) / 100
            return self._usage.stack.new_number(201) / 100
        if response.status == 500:
            # RFC 3311 section 5.1: an offer of the peer's was still being answered.
            said = (response.headers.get("Retry-After") or "").partition(";")[0].strip()
            if said.isascii() and said.isdigit() and len(said) < 3 and int(said) <= MAX_RETRY_AFTER:
                return float(said)
        return None
