"""
An INVITE and the call that it makes: what the UAS and the UAC side share.

RFC 5057 calls this an invite usage. Pure: every method takes `now`; what happens comes out as events of the stack.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from offhook.trace import RoutingDecision, StateChange, WireMessage

from .acceptances import Acceptances
from .acks import Acks
from .allowance import Allowance
from .credentials import Authentication, Credentials
from .dialog import Dialog
from .events import (
    Acknowledged,
    Confirmed,
    EndCause,
    Ended,
    LegEnded,
    LegEvent,
    Offered,
    Parted,
    ReferUpdated,
    Replied,
    Requested,
)
from .exchange import ClientExchange, ServerExchange
from .flow import Address, Flow
from .message import Request, Response
from .offers import Offers
from .own_requests import OwnRequests
from .reasons import create_reason, reasons_of
from .refers import Refers
from .route import Attempt, Plan, RouteError, plan_in_dialog
from .session_refresh import SessionRefresh
from .session_timer import SessionTimer
from .timer_heap import Alarm
from .transaction import LocalProtocolError

if TYPE_CHECKING:
    from .stack import Stack

__all__ = ["InviteUsage", "Trace"]

Trace = WireMessage | StateChange | RoutingDecision


class InviteUsage:
    """One leg. Subclasses add how it begins."""

    role = ""

    def __init__(self, stack: Stack, invite: Request, flow: Flow | None) -> None:
        self.stack = stack
        self.invite = invite
        self.flow = flow
        "The flow of the INVITE; in-dialog requests prefer it."
        self.state = "calling"
        self.dialog: Dialog | None = None
        self.ack: Request | None = None
        "The last ACK received."
        self.armed: Alarm | None = None
        self.tracer: Callable[[Trace], None] | None = None
        # What hangs on a leg must not keep it alive: the collector would have to come for each call.
        this: InviteUsage = weakref.proxy(self)
        self.session = SessionRefresh(
            this, SessionTimer(stack.config.session, owns_call_id=self.role == "uac")
        )
        self.allowance = Allowance(now=stack.now)
        self.early_traces: list[Trace] = []
        "What was noted before `tracer` was set; bounded."
        self.tls_hostname = ""
        "What the peer's certificate must show where a route names a bare address."
        self.credentials: Credentials | None = None
        "What the peer's challenges to our requests are answered with."
        self.peer: object | None = None
        self.owner: object | None = None
        "What the driver hangs here: its face of this usage."
        self._answered = False
        self._open: list[ServerExchange] = []
        self._offers = Offers(new_number=stack.new_number)
        self._acks = Acks(this, plan=lambda dialog: this._plan(dialog))
        self._own = OwnRequests(
            this,
            start=lambda *what: this._start(*what),
            acks=self._acks,
            on_refer_replied=lambda: this._drain_refers(),
            on_gone=lambda status, text, now: this._send_bye(
                "timeout", create_reason("SIP", status, text), text, now
            ),
        )
        self._acceptances = Acceptances(stack.config.timers)
        self._refers = Refers(
            notify_timeout=stack.config.refer_notify_timeout,
            on_update=lambda update: this.emit(ReferUpdated(update)),
        )
        self._hangup: tuple[str | None] | None = None
        self._held: set[int] = set()
        self._latest: Flow | None = None
        self._bye_pending = False
        self._release_at: float | None = None

    @property
    def call_id(self) -> str:
        return self.invite.call_id

    @property
    def is_leaving(self) -> bool:
        """Whether a BYE is still to be sent: it waits for the ACK."""
        return self._hangup is not None and self.state != "ended"

    @property
    def refer_count(self) -> int:
        return len(self._refers)

    @property
    def answers_offer(self) -> bool:
        """Whether an offer of the peer's, or a 2xx of ours to its INVITE, is not settled yet."""
        return self._offers.are_theirs or bool(self._acceptances)

    # Intents.

    def respond(
        self,
        request: Request,
        status: int,
        reason: str | None = None,
        *,
        now: float,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
    ) -> bool:
        """Answer a request that came as `Offered` or `Requested`; `False` if it is answered already."""
        exchange = next((e for e in self._open if e.request is request), None)
        if exchange is None or exchange.is_answered:
            return False
        headers = list(headers)
        if status < 300 and request.method in ("INVITE", "UPDATE"):
            headers = [("Contact", self.contact()), ("Allow", self.stack.allow), *headers]
            if status >= 200:
                headers = [*self.session.answer_headers(request, body, now=now), *headers]
                self.rearm()
        elif status == 405:
            # RFC 3261 section 8.2.1.
            headers = [("Allow", self.stack.allow), *headers]
        response = exchange.respond(
            status, reason, now=now, headers=headers, body=body, content_type=content_type
        )
        if exchange.is_answered:
            self._open.remove(exchange)
            self._offers.answered(request, status, offers=bool(body))
        if 200 <= status < 300 and request.method in ("INVITE", "UPDATE"):
            self._dialog_of(request).refresh_target(request)
            if request.method == "INVITE":
                self._await_ack(exchange, response, now)
        self._own.send_waiting(now=now)
        return True

    def request(
        self,
        method: str,
        *,
        now: float,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
        key: int | None = None,
    ) -> int:
        """
        Send a request in the dialog, and return its key: a `Replied` with it follows.

        An answered leg waits for the ACK first. An INVITE or UPDATE that crosses one of the peer's is sent again after
        the time of RFC 3261 section 14.1, some times over. Raises `LocalProtocolError` when there is no dialog, and for
        methods with machines of their own.
        """
        if method in ("ACK", "CANCEL", "BYE", "REFER"):
            raise LocalProtocolError(f"{method} has a method of its own")
        return self._own.add(
            method, headers=list(headers), body=body, content_type=content_type, refer=None, now=now, key=key
        )

    def refer(
        self,
        refer_to: str,
        *,
        now: float,
        headers: Iterable[tuple[str, str]] = (),
        referred_by: str | None = None,
    ) -> int:
        """
        Send a REFER, and return its key: `Replied` follows, and `ReferUpdated` as the outcome becomes known.

        Raises `ReferPending`, and `LocalProtocolError` when there is no dialog.
        """
        refer = self._refers.create()
        items = [("Refer-To", refer_to if "<" in refer_to else f"<{refer_to}>")]
        if referred_by is not None:
            items.append(("Referred-By", referred_by if "<" in referred_by else f"<{referred_by}>"))
        key = self._own.add(
            "REFER", headers=[*items, *headers], body=b"", content_type=None, refer=refer, now=now
        )
        self._refers.add(refer, key)
        return key

    def stop_waiting(self, key: int, *, now: float) -> None:
        """Note that nobody waits for request `key` any more; one that was not sent yet is dropped."""
        self._refers.stop_waiting(key, was_sent=not self._own.stop_waiting(key))

    def new_authentication(self) -> Authentication:
        """Return what one request of ours does about challenges."""
        return Authentication(self.credentials, self.stack.new_token)

    def contact(self) -> str:
        """Return our Contact on the INVITE's flow."""
        assert self.flow is not None
        secure = self.invite.uri[:5].lower() == "sips:"
        return self.stack.contact_for(self.flow, secure=secure)

    # What the stack feeds in.

    def receive_request(self, exchange: ServerExchange, *, now: float) -> None:
        """Handle a request in this leg's dialog, other than ACK and CANCEL."""
        request = exchange.request
        if not self._dialog_of(request).accepts(request):
            exchange.respond(500, "CSeq Out Of Order", now=now)
            return
        if self.state != "ended":
            self._latest = exchange.flow
            self._hold(exchange.flow)
        if request.method == "BYE":
            exchange.respond(200, now=now)
            self._receive_bye(request, now)
        elif request.method == "NOTIFY":
            self._receive_notify(exchange, now)
        elif self.state == "ended":
            exchange.respond(481, now=now)
        elif request.method == "OPTIONS":
            exchange.respond(200, now=now, headers=self.stack.capabilities)
        elif request.method in ("INVITE", "UPDATE"):
            self._receive_offer(exchange, now)
        else:
            self._open.append(exchange)
            self.emit(Requested(request))

    def receive_ack(self, request: Request, *, now: float) -> None:
        """Handle an ACK to a 2xx; repeats are ignored."""
        exchange = self._acceptances.acknowledge(request.cseq.number)
        if exchange is None:
            return
        self.ack = request
        self._offers.acknowledged(request.cseq.number)
        if exchange.request is not self.invite:
            self.emit(Acknowledged(request))
        elif self.state == "answered":
            self._set_state("confirmed", "ACK received", now)
            self.emit(Confirmed(request))
        if self._hangup is not None and not self._acceptances:
            self._send_bye("local_bye", self._hangup[0], "hung up by us", now)
            return
        self._own.send_waiting(now=now)

    def receive_2xx(self, response: Response, *, now: float) -> bool:
        """Acknowledge a repeated 2xx to an INVITE of ours; `False` if it is not a repeat."""
        return self._acks.repeat(response, now=now)

    def next_timer(self) -> float | None:
        deadlines = (
            self._refers.next_timer(),
            self._acceptances.next_timer(),
            self._own.next_timer(),
            self.session.next_timer(),
            self._release_at,
        )
        return min([deadline for deadline in deadlines if deadline is not None], default=None)

    def handle_timer(self, *, now: float) -> None:
        if self._acceptances.handle_timer(now=now):
            text = f"no ACK to our 200 within {64 * self.stack.config.timers.t1:g} s"
            self._set_state(self.state, text, now)
            reason = self._hangup[0] if self._hangup is not None else None
            self._send_bye("no_ack", reason or create_reason("SIP", 408, "no ACK"), text, now)
        self._refers.handle_timer(now=now)
        self._own.handle_timer(now=now)
        self.session.handle_timer(now=now)
        if self._release_at is not None and now >= self._release_at:
            self._release()
        self.stack.arm(self)

    def expire(self, text: str, *, now: float) -> None:
        """End the leg because its session timer ran out."""
        self._send_bye("session_expired", create_reason("SIP", 408, "Session timer expired"), text, now)

    def emit(self, event: LegEvent) -> None:
        if not (isinstance(event, Replied) and self.session.receive_reply(event, now=self.stack.now)):
            self.stack.emit(self, event)

    def note(self, trace: Trace) -> None:
        """Hand a trace on, or keep it until somebody asks."""
        if self.tracer is not None:
            self.tracer(trace)
        elif len(self.early_traces) < 64:
            self.early_traces.append(trace)

    # Dialogs and the end.

    def _dialog_of(self, request: Request) -> Dialog:
        assert self.dialog is not None
        return self.dialog

    def _hold(self, flow: Flow) -> None:
        """Keep the connection alive while the dialog lives."""
        if flow.connection is not None and flow.connection not in self._held:
            self._held.add(flow.connection)
            self.stack.hold(flow)

    def _set_state(self, state: str, reason: str, now: float) -> None:
        self.state = state
        self.note(StateChange(now, "leg", state, reason))

    def _end(self, cause: EndCause, reason_header: str | None, text: str, now: float) -> None:
        if self.state == "ended":
            return
        was_answered, self._answered = self._answered, False
        self._set_state("ended", text, now)
        self._acceptances.clear()
        for exchange in self._open:
            if not exchange.is_answered:
                exchange.respond(487, now=now)
        self._open.clear()
        self._own.end(now=now)
        self.session.stop()
        self._refers.end(by_peer=cause == "remote_bye")
        if was_answered:
            self.emit(Ended(LegEnded(cause, reason_header, text)))
        self._release_when_quiet(now)

    def _release_when_quiet(self, now: float) -> None:
        """Forget the dialog: at once, or after 64*T1 when a NOTIFY may still come (RFC 5057 section 4.2)."""
        if self._bye_pending or self.state != "ended":
            return
        if self._refers and self._release_at is None:
            self.emit(Parted())
            self._release_at = now + 64 * self.stack.config.timers.t1
            self.stack.arm(self)
        elif not self._refers:
            self._release()

    def _release(self) -> None:
        self._release_at = None
        self.stack.forget_usage(self)
        for connection in self._held:
            self.stack.release(connection)
        self._held.clear()

    def _receive_bye(self, request: Request, now: float) -> None:
        self._end("remote_bye", reasons_of(request), "hung up by the peer", now)

    def _send_bye(self, cause: EndCause, reason_header: str | None, text: str, now: float) -> None:
        if self.state == "ended":
            return
        headers = [] if reason_header is None else [("Reason", reason_header)]
        assert self.dialog is not None
        self._bye_pending = True
        self._start_bye(headers, self.new_authentication(), now)
        self._end(cause, reason_header, text, now)

    def _start_bye(self, headers: list[tuple[str, str]], authentication: Authentication, now: float) -> None:
        assert self.dialog is not None
        request = self._with_agent(self.dialog.create_request("BYE", headers=headers))
        authentication.sign(request)

        def on_response(exchange: ClientExchange, response: Response, now: float) -> None:
            if authentication.takes(response):
                # The leg is over for us; for the peer it is only when it takes this.
                self._start_bye(headers, authentication, now)
            elif response.status >= 200:
                self._bye_pending = False
                self._release_when_quiet(now)

        self._start(request, self.dialog, on_response, self._bye_failed, now)

    def _bye_failed(
        self, exchange: ClientExchange, reason: str, attempts: tuple[Attempt, ...], now: float
    ) -> None:
        self.note(StateChange(now, "BYE", "failed", reason))
        self._bye_pending = False
        self._release_when_quiet(now)

    # Requests that we answer.

    def _receive_offer(self, exchange: ServerExchange, now: float) -> None:
        request = exchange.request
        refused = self._offers.refuse(
            request,
            unanswered=self.role == "uas" and self.state in ("calling", "early"),
            ours=self._own.offer or (self.role == "uac" and self.state in ("calling", "early")),
        )
        if refused is not None:
            exchange.respond(refused.status, now=now, headers=refused.headers)
            return
        exchange.usage = self
        self._open.append(exchange)
        self._offers.begin(request)
        if request.method == "INVITE":
            exchange.respond(100, now=now)
        self.emit(Offered(request))

    def _receive_notify(self, exchange: ServerExchange, now: float) -> None:
        request = exchange.request
        event, _, params = (request.headers.get("Event") or "").partition(";")
        if event.strip().lower() != "refer":
            exchange.respond(489, now=now, headers=[("Allow-Events", "refer")])
            return
        refer = self._refers.find(params)
        if refer is None:
            exchange.respond(481, "Subscription Does Not Exist", now=now)
            return
        exchange.respond(200, now=now)
        refer.receive_notify(request, now=now)
        self._drain_refers()

    def _await_ack(self, exchange: ServerExchange, response: Response, now: float) -> None:
        self._acceptances.add(exchange, response, now=now)
        self.stack.arm(self)

    # Requests that we send.

    def rearm(self) -> None:
        """Note that something has a new deadline."""
        self.stack.arm(self)

    def itself(self) -> InviteUsage:
        """Return the leg, for what knows it weakly and needs it until something is done."""
        return self

    def _drain_refers(self) -> None:
        self._refers.drain()
        self.stack.arm(self)

    def _start(
        self,
        request: Request,
        dialog: Dialog,
        on_response: Callable[[ClientExchange, Response, float], None],
        on_failure: Callable[[ClientExchange, str, tuple[Attempt, ...], float], None],
        now: float,
    ) -> ClientExchange:
        exchange = ClientExchange(
            self.stack,
            self,
            request,
            on_response=on_response,
            on_failure=on_failure,
            replan=lambda: self._plan(dialog),
        )
        exchange.start(self._plan(dialog), now=now)
        return exchange

    @property
    def moved_to(self) -> Address | None:
        """Where the peer's last request by UDP came from, when that is elsewhere than where its INVITE did."""
        latest, flow = self._latest, self.flow
        if latest is None or flow is None or latest.is_reliable or flow.is_reliable:
            return None
        return latest.remote if latest.remote != flow.remote else None

    def _plan(self, dialog: Dialog) -> Plan:
        assert self.flow is not None
        latest, alive = self._latest or self.flow, self.stack.is_open(self.flow)
        if latest.is_reliable and not alive and self.stack.is_open(latest):
            # The peer let the first connection go and opened another: as good a path as the INVITE's was.
            return Plan(latest, (), f"by the connection of the peer's last request, {latest}")
        try:
            return plan_in_dialog(dialog, self.flow, alive=alive, moved_to=self.moved_to)
        except RouteError as exc:
            return Plan(None, (), str(exc))

    def _with_agent(self, request: Request) -> Request:
        request.headers.add("User-Agent", self.stack.config.user_agent)
        return request
