"""One request and its responses: a transaction joined to the flow that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from offhook.trace import RoutingDecision, StateChange

from .flow import Flow
from .message import Request, Response, create_response
from .route import Attempt, Plan
from .transaction import (
    AckReceived,
    ClientTransaction,
    InviteClientTransaction,
    InviteServerTransaction,
    ResponseReceived,
    Send,
    ServerTransaction,
    State,
    Terminated,
)

if TYPE_CHECKING:
    from .stack import Stack
    from .usage import InviteUsage

__all__ = ["ClientExchange", "ServerExchange"]

OnResponse = Callable[["ClientExchange", Response, float], None]
OnFailure = Callable[["ClientExchange", str, tuple[Attempt, ...], float], None]


class ServerExchange:
    """A request that this side answers."""

    __slots__ = (
        "_data",
        "_last",
        "armed",
        "flow",
        "is_answered",
        "request",
        "stack",
        "to_tag",
        "transaction",
        "usage",
    )

    def __init__(self, stack: Stack, request: Request, flow: Flow) -> None:
        self.stack = stack
        self.request = request
        self.flow = flow
        self.usage: InviteUsage | None = None
        self.to_tag = request.to.tag or stack.new_token()
        self.is_answered = False
        self.armed: float | None = None
        self._last: Response | None = None
        self._data = b""
        kind = InviteServerTransaction if request.method == "INVITE" else ServerTransaction
        self.transaction = kind(reliable=flow.is_reliable, timers=stack.config.timers)

    def respond(
        self,
        status: int,
        reason: str | None = None,
        *,
        now: float,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
    ) -> Response:
        """Build and send a response. Raises `LocalProtocolError` after a final one, and `HeaderError`."""
        response = create_response(
            self.request,
            status,
            reason,
            to_tag=self.to_tag if status > 100 else None,
            headers=(("Server", self.stack.config.user_agent), *headers),
            body=body,
            content_type=content_type,
        )
        self.transaction.send_response(response, now=now)
        self.is_answered = status >= 200
        self._drain(now)
        return response

    def repeat(self, response: Response, *, now: float) -> None:
        """Send an INVITE's latest response again: 1xx or 2xx (RFC 3261 sections 13.3.1.1 and 13.3.1.4)."""
        if self.transaction.state in (State.PROCEEDING, State.ACCEPTED):
            self.transaction.send_response(response, now=now)
            self._drain(now)

    def receive_request(self, request: Request, *, now: float) -> None:
        """Handle a retransmission, or an ACK with this transaction's branch."""
        before = self.transaction.state
        self.transaction.receive_request(request, now=now)
        # Some peers acknowledge a 2xx with the INVITE's own branch.
        if request.method == "ACK" and before is State.ACCEPTED and self.usage is not None:
            self.usage.receive_ack(request, now=now)
        self._drain(now)

    def next_timer(self) -> float | None:
        return self.transaction.next_timer()

    def handle_timer(self, *, now: float) -> None:
        self.transaction.handle_timer(now=now)
        self._drain(now)

    def _drain(self, now: float) -> None:
        for output in self.transaction.outputs():
            match output:
                case Send(Response() as response):
                    if response is not self._last:
                        self._last, self._data = response, bytes(response)
                    self.stack.send_response(self, self._data, now=now)
                case Terminated(timed_out):
                    if timed_out and self.usage is not None:
                        self.usage.note(
                            StateChange(now, "transaction INVITE", "terminated", "no ACK to the refusal")
                        )
                    self.stack.forget_server(self)
                case AckReceived():
                    pass
        self.stack.arm(self)


class ClientExchange:
    """
    A request that this side sends.

    `on_response` gets every response (each 2xx to an INVITE), `on_failure` the reason why no final one will come:
    exactly one final response or one failure, except for the repeated and forked 2xx of an INVITE.
    """

    __slots__ = (
        "_data",
        "_last",
        "_on_failure",
        "_on_response",
        "_replan",
        "abandoned",
        "armed",
        "flow",
        "has_response",
        "key",
        "request",
        "stack",
        "transaction",
        "usage",
    )

    def __init__(
        self,
        stack: Stack,
        usage: InviteUsage,
        request: Request,
        *,
        on_response: OnResponse,
        on_failure: OnFailure,
        replan: Callable[[], Plan] | None = None,
    ) -> None:
        self.stack = stack
        self.usage = usage
        self.request = request
        self.key: tuple[str, str] | None = None
        self.flow: Flow | None = None
        self.transaction: ClientTransaction | InviteClientTransaction | None = None
        self.has_response = False
        self.abandoned = False
        "Nobody wants it sent any more."
        self.armed: float | None = None
        self._on_response = on_response
        self._on_failure = on_failure
        self._replan = replan
        self._last: Request | None = None
        self._data = b""

    def start(self, plan: Plan, *, now: float) -> None:
        """Send the request by `plan`; a request with a Via already goes as it is, by `plan.flow`."""

        def reached(flow: Flow | None, attempts: tuple[Attempt, ...], now: float) -> None:
            if self.abandoned:
                return
            if flow is None:
                self._fail_to_reach(plan, attempts, now)
            else:
                self._begin(flow, plan, now)

        self.stack.reach(plan, self.usage.flow, reached, now=now)

    def receive_response(self, response: Response, *, now: float) -> None:
        self.has_response = True
        assert self.transaction is not None
        self.transaction.receive_response(response, now=now)
        self._drain(now)

    def connection_lost(self, *, now: float) -> None:
        """
        The connection closed. An in-dialog request that got no response at all goes the next way, once.

        A peer that did get it refuses the copy by its CSeq; a peer that closed an idle connection without a word
        (the usual case) gets it for the first time.
        """
        if self.transaction is None or self.transaction.state not in (
            State.CALLING,
            State.TRYING,
            State.PROCEEDING,
        ):
            return
        self.stack.forget_client(self)
        replan, self._replan = self._replan, None
        if replan is not None and not self.has_response:
            self.transaction = self._last = None
            self.request.headers.remove("Via")
            self.start(replan(), now=now)
        else:
            self._on_failure(self, "the connection closed before the response came", (), now)

    def give_up(self, *, now: float) -> None:
        """Bound the wait for an INVITE's final response after CANCEL."""
        if isinstance(self.transaction, InviteClientTransaction):
            self.transaction.give_up(now=now)
            self.stack.arm(self)

    def next_timer(self) -> float | None:
        return None if self.transaction is None else self.transaction.next_timer()

    def handle_timer(self, *, now: float) -> None:
        if self.transaction is not None:
            self.transaction.handle_timer(now=now)
            self._drain(now)

    def _begin(self, flow: Flow, plan: Plan, now: float) -> None:
        request = self.request
        self.flow = flow
        self.usage.flow = self.usage.flow or flow
        if "Via" not in request.headers:
            request.headers.prepend("Via", self.stack.via_for(flow))
            text = f"sent {request.method} {plan.text}"
            if not plan.flow:
                text += f" ({flow})"
            self.usage.note(RoutingDecision(now, request.method, text))
        if request.method == "INVITE" and "Contact" not in request.headers:
            request.headers.add("Contact", self.usage.contact())
        kind = InviteClientTransaction if request.method == "INVITE" else ClientTransaction
        self.transaction = kind(request, reliable=flow.is_reliable, timers=self.stack.config.timers, now=now)
        self.key = (request.top_via.branch or "", request.method)
        self.stack.remember_client(self)
        self._drain(now)

    def _fail_to_reach(self, plan: Plan, attempts: tuple[Attempt, ...], now: float) -> None:
        tried = "; ".join(str(attempt) for attempt in attempts)
        text = f"could not send {self.request.method}: {tried or plan.text}"
        details = {"attempts": len(attempts)}
        self.usage.note(RoutingDecision(now, self.request.method, text, details))
        self._on_failure(self, "unreachable", attempts, now)

    def _drain(self, now: float) -> None:
        assert self.transaction is not None
        for output in self.transaction.outputs():
            match output:
                case Send(Request() as request):
                    assert self.flow is not None
                    if request is not self._last:
                        self._last, self._data = request, bytes(request)
                    self.stack.transmit(self.flow, self._data, self.usage, now=now)
                case ResponseReceived(response):
                    self._on_response(self, response, now)
                case Terminated(timed_out):
                    self.stack.forget_client(self)
                    if timed_out:
                        self._on_failure(self, "no answer", (), now)
        self.stack.arm(self)
