"""The calling side of an INVITE (RFC 3261 section 13.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .dialog import Dialog
from .digest import authorization, find_challenge
from .events import Answered, Provisional, Refused
from .exchange import ClientExchange
from .headers import Headers
from .message import Request, Response
from .route import Attempt, Plan
from .usage import InviteUsage

if TYPE_CHECKING:
    from .stack import Stack

__all__ = ["UacUsage", "create_invite"]


def create_invite(
    stack: Stack, uri: str, from_uri: str, sdp: bytes, headers: Iterable[tuple[str, str]]
) -> Request:
    """Build an INVITE that begins a call, without Via and Contact. Raises `HeaderError`."""
    from_value = from_uri if "<" in from_uri else f"<{from_uri}>"
    items = [
        ("Max-Forwards", "70"),
        ("From", f"{from_value};tag={stack.new_token()}"),
        ("To", f"<{uri}>"),
        ("Call-ID", stack.new_token() + stack.new_token()),
        ("CSeq", "1 INVITE"),
        ("Allow", stack.allow),
        ("User-Agent", stack.config.user_agent),
        *headers,
    ]
    if sdp:
        items.append(("Content-Type", "application/sdp"))
    return Request("INVITE", uri, headers=Headers(items), body=sdp)


MAX_RAISES = 3
"How often one call asks for a longer session: the UAS and each proxy on the way may say 422 once."


class UacUsage(InviteUsage):
    """A call that we place. The first 2xx makes the call; further ones, of other forks, are ended at once."""

    role = "uac"

    def __init__(self, stack: Stack, invite: Request, credentials: tuple[str, str] | None = None) -> None:
        super().__init__(stack, invite, None)
        self._credentials = credentials
        self._authorized = 0
        "How often a challenge was answered."
        self._dialogs: dict[str, Dialog] = {}
        self._cancelled = False
        self._cancel_sent = False
        self._exchange = self._exchange_of(invite)
        self._plan_of_invite: Plan | None = None
        self._raises = 0

    def start(self, plan: Plan, *, now: float) -> None:
        """Send the INVITE."""
        for name, value in self.session.first_headers():
            self.invite.headers.add(name, value)
        self._plan_of_invite = plan
        self._exchange.start(plan, now=now)

    def hangup(self, *, now: float, reason_header: str | None = None) -> None:
        """End the leg: CANCEL while it rings, else BYE. `Refused` or `Ended` follows."""
        if self.state == "confirmed":
            self._send_bye("local_bye", reason_header, "hung up by us", now)
        elif self.state in ("calling", "early"):
            self._cancelled = True
            if self._exchange.transaction is None:
                self._exchange.abandoned = True
                self._end_unanswered(None, "cancelled before it was sent", (), now)
            elif self._exchange.has_response:
                self._send_cancel(reason_header, now)

    # The INVITE's responses.

    def _receive_response(self, exchange: ClientExchange, response: Response, now: float) -> None:
        if response.status < 200:
            self._receive_provisional(response, now)
        elif response.status < 300:
            self._receive_answer(response, now)
        elif not self._begin_again(exchange, response, now):
            self._end_unanswered(response, f"{response.status} {response.reason}", (), now)

    def _begin_again(self, exchange: ClientExchange, response: Response, now: float) -> bool:
        """Send the INVITE again where the refusal says how it would be taken; `False` when it does not."""
        if response.status == 422:
            return self._raise_interval(response, now)
        return self._authorize(exchange, response, now)

    def _authorize(self, exchange: ClientExchange, response: Response, now: float) -> bool:
        """Send the INVITE again with credentials (RFC 3261 section 22.2), if that was asked for and can help."""
        challenge = find_challenge(response.status, response.headers.get_all)
        if challenge is None or self._credentials is None or self._cancelled or self.state == "ended":
            return False
        if self._authorized >= (2 if challenge.stale else 1):
            return False
        self._authorized += 1
        user, password = self._credentials
        value = authorization(
            challenge,
            user=user,
            password=password,
            method="INVITE",
            uri=self.invite.uri,
            cnonce=self.stack.new_token(),
        )
        assert exchange.flow is not None
        # By the flow that it was challenged on: the nonce may be of that server alone.
        self._send_again([(challenge.header, value)], Plan(exchange.flow, (), "by the same flow"), now)
        return True

    def _receive_provisional(self, response: Response, now: float) -> None:
        if self.state == "ended":
            return
        if self.state == "confirmed":
            # Another target, asked because this one was silent, begins to ring.
            self._send_cancel(None, now)
            return
        if response.status > 100:
            if response.to.tag:
                self._learn_dialog(response)
            if self.state == "calling":
                self._set_state("early", f"received {response.status}", now)
            if not self._cancelled:
                self.emit(Provisional(response))
        # Section 9.1: no CANCEL before the first provisional response.
        if self._cancelled:
            self._send_cancel(None, now)

    def _receive_answer(self, response: Response, now: float) -> None:
        if self.receive_2xx(response, now=now):
            return
        dialog = Dialog.from_response(self.invite, response)
        self._dialogs[dialog.remote_tag] = dialog
        if self.state != "ended":
            self.stack.remember_dialog(dialog, self)
        self._acks.send(dialog, self.invite.cseq.number, now=now)
        if self.state not in ("calling", "early"):
            self._end_fork(dialog, now)
            return
        self.dialog = dialog
        if self.flow is not None:
            self._hold(self.flow)
        if self._exchange.is_proceeding:
            self._send_cancel(None, now)
        if self._cancelled:
            self._set_state("confirmed", "answered while we cancelled", now)
            self._answered = True
            self._send_bye("local_bye", None, "answered while we cancelled", now)
            return
        self._answered = True
        self._set_state("confirmed", f"received {response.status}", now)
        self.session.receive_2xx(response, self.invite.body, now=now)
        self.emit(Answered(response))

    def _exchange_of(self, invite: Request) -> ClientExchange:
        return ClientExchange(
            self.stack, self, invite, on_response=self._receive_response, on_failure=self._invite_failed
        )

    def _raise_interval(self, response: Response, now: float) -> bool:
        """RFC 4028 section 7.3: ask again for the session that the peer takes; `False` when that cannot help."""
        self._raises += 1
        headers = self.session.raise_interval(response)
        if not headers or self._raises > MAX_RAISES or self._cancelled or self.state == "ended":
            return False
        assert self._plan_of_invite is not None
        self._send_again(headers, self._plan_of_invite, now)
        return True

    def _send_again(self, headers: Iterable[tuple[str, str]], plan: Plan, now: float) -> None:
        """Send the INVITE as a new request of the same call, with these headers set."""
        again = self.invite.headers.copy()
        again.remove("Via")
        for name, value in (("CSeq", f"{self.invite.cseq.number + 1} INVITE"), *headers):
            again.set(name, value)
        self.invite = Request("INVITE", self.invite.uri, headers=again, body=self.invite.body)
        self._exchange = self._exchange_of(self.invite)
        self._exchange.start(plan, now=now)

    def _learn_dialog(self, response: Response) -> None:
        tag = response.to.tag or ""
        if tag not in self._dialogs:
            dialog = Dialog.from_response(self.invite, response)
            self._dialogs[tag] = dialog
            self.dialog = self.dialog or dialog
            self.stack.remember_dialog(dialog, self)

    def _end_fork(self, dialog: Dialog, now: float) -> None:
        """Section 13.2.2.4: another fork answered too; acknowledge it and hang it up."""
        request = self._with_agent(dialog.create_request("BYE"))
        self._start(request, dialog, lambda *_: None, lambda *_: None, now)

    def _invite_failed(
        self, exchange: ClientExchange, reason: str, attempts: tuple[Attempt, ...], now: float
    ) -> None:
        if reason == "no answer" and self._cancelled:
            reason = "cancelled, and no final response came"
        self._end_unanswered(None, reason, attempts, now)

    def _end_unanswered(
        self, response: Response | None, reason: str, attempts: tuple[Attempt, ...], now: float
    ) -> None:
        if self.state != "ended":
            self._end("local_bye", None, reason, now)
            self.emit(Refused(response, reason, attempts))

    def _send_cancel(self, reason_header: str | None, now: float) -> None:
        if self._cancel_sent or self._exchange.flow is None:
            return
        self._cancel_sent = True
        self._exchange.cancel(now=now, headers=[] if reason_header is None else [("Reason", reason_header)])

    def _dialog_of(self, request: Request) -> Dialog:
        return self._dialogs.get(request.from_.tag or "") or super()._dialog_of(request)

    def _receive_bye(self, request: Request, now: float) -> None:
        # A BYE of a fork that lost, or of an early dialog: the INVITE itself goes on.
        if self.dialog is not None and (request.from_.tag or "") == self.dialog.remote_tag and self._answered:
            super()._receive_bye(request, now)
