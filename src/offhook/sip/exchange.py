"""One request and its responses: a transaction joined to the flow that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from offhook.trace import RoutingDecision, StateChange, WireMessage

from .flow import Flow, format_address
from .message import Request, Response, create_response
from .route import MAX_DATAGRAM, Attempt, Plan, Way, prefer_tcp
from .timer_heap import Alarm
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
    create_cancel,
)
from .transaction.keys import ServerKey, merge_key
from .ways import REACH_TIMEOUT

if TYPE_CHECKING:
    from .stack import Stack
    from .usage import InviteUsage

__all__ = ["ClientExchange", "Requester", "ServerExchange"]

SILENCE = 5
"""
A UDP target that says nothing for so many T1 (three sends) gives way to the next one, where there is one. RFC 3263
section 4.3 waits for timer B or F; 32 s are too long for whoever asked for a transfer.
"""
VIA_SIZE = 100
"Bytes that the Via will add."

_UNANSWERED = (State.CALLING, State.TRYING, State.PROCEEDING)

OnResponse = Callable[["ClientExchange", Response, float], None]
OnFailure = Callable[["ClientExchange", str, tuple[Attempt, ...], float], None]


class Requester(Protocol):
    """Who sends a request: a call's usage or a registration."""

    flow: Flow | None
    tls_hostname: str
    "What a certificate must show when a hop names a bare address; empty: that address."

    def contact(self) -> str: ...
    def note(self, item: WireMessage | StateChange | RoutingDecision) -> None: ...


class ServerExchange:
    """A request that this side answers."""

    __slots__ = (
        "_data",
        "_last",
        "armed",
        "copy_key",
        "flow",
        "is_answered",
        "key",
        "peer",
        "request",
        "stack",
        "to_tag",
        "transaction",
        "usage",
    )

    def __init__(self, stack: Stack, request: Request, flow: Flow, key: ServerKey) -> None:
        self.stack = stack
        self.request = request
        self.flow = flow
        self.key = key
        self.copy_key = merge_key(request)
        "What copies of the request have too that come by other ways."
        self.usage: InviteUsage | None = None
        self.peer: object | None = None
        "What the stack's gate knows of the sender."
        self.to_tag = request.to.tag or stack.new_token()
        self.is_answered = False
        self.armed: Alarm | None = None
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
        "_attempts",
        "_data",
        "_deadline",
        "_is_over",
        "_last",
        "_late_refusal",
        "_on_failure",
        "_on_response",
        "_plan",
        "_refused",
        "_replan",
        "_silent_at",
        "_way",
        "abandoned",
        "armed",
        "flow",
        "has_response",
        "key",
        "keys",
        "request",
        "stack",
        "transaction",
        "usage",
    )

    def __init__(
        self,
        stack: Stack,
        usage: Requester,
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
        self.keys: dict[tuple[str, str], Flow] = {}
        "Those of targets that were silent, then the present one's: a late answer counts all the same."
        self.flow: Flow | None = None
        self.transaction: ClientTransaction | InviteClientTransaction | None = None
        self.has_response = False
        self.abandoned = False
        "Nobody wants it sent any more."
        self.armed: Alarm | None = None
        self._on_response = on_response
        self._on_failure = on_failure
        self._replan = replan
        self._plan = Plan(None, (), "")
        self._way = Way(None)
        self._refused: Response | None = None
        self._attempts: tuple[Attempt, ...] = ()
        self._deadline = 0.0
        self._is_over = False
        self._late_refusal: Response | None = None
        self._silent_at: float | None = None
        self._last: Request | None = None
        self._data = b""

    @property
    def is_waiting(self) -> bool:
        """Whether the final response is still to come."""
        return self.transaction is not None and self.transaction.state in _UNANSWERED

    @property
    def is_proceeding(self) -> bool:
        """Whether the target that was asked last has said that it is at work, and no more."""
        return self.transaction is not None and self.transaction.state is State.PROCEEDING

    def start(self, plan: Plan, *, now: float) -> None:
        """Send the request by `plan`; a request with a Via already goes as it is, by `plan.flow`."""
        self._plan, self._way = plan, Way(None)
        if plan.flow is None and len(bytes(self.request)) + VIA_SIZE > MAX_DATAGRAM:
            self._plan = prefer_tcp(plan)
        self._deadline = now + REACH_TIMEOUT
        self._look(now)

    def receive_response(self, response: Response, *, now: float) -> None:
        self.has_response = True
        self._silent_at = None
        key = (response.top_via.branch or "", response.cseq.method)
        if key != self.key or self.transaction is None:
            self._receive_late(key, response, now)
            return
        self.transaction.receive_response(response, now=now)
        self._drain(now)

    def connection_lost(self, *, now: float) -> None:
        """
        The connection closed. An in-dialog request that got no response at all goes the next way, once.

        A peer that did get it refuses the copy by its CSeq; a peer that closed an idle connection without a word
        (the usual case) gets it for the first time.
        """
        if not self.is_waiting:
            return
        if not self.has_response and self._way.others:
            self._give_up_target("the connection closed before any answer", now)
            self._stop()
            self._look(now)
            return
        self.stack.forget_client(self)
        replan, self._replan = self._replan, None
        if replan is not None and not self.has_response:
            self._stop()
            self.start(replan(), now=now)
        else:
            self._fail("the connection closed before the response came", now)

    def cancel(self, *, now: float, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send CANCEL for an INVITE that has a provisional response, and bound the wait for the final one."""
        if self.transaction is None:
            return
        request = create_cancel(self.request)
        for name, value in (*headers, ("User-Agent", self.stack.config.user_agent)):
            request.headers.add(name, value)
        cancel = ClientExchange(
            self.stack, self.usage, request, on_response=lambda *_: None, on_failure=lambda *_: None
        )
        cancel.start(Plan(self.flow, (), "by the INVITE's flow"), now=now)
        self.give_up(now=now)

    def give_up(self, *, now: float) -> None:
        """Bound the wait for an INVITE's final response after CANCEL."""
        if isinstance(self.transaction, InviteClientTransaction):
            self.transaction.give_up(now=now)
            self.stack.arm(self)

    def next_timer(self) -> float | None:
        deadlines = (self.transaction.next_timer() if self.transaction else None, self._silent_at)
        return min([deadline for deadline in deadlines if deadline is not None], default=None)

    def handle_timer(self, *, now: float) -> None:
        if self._silent_at is not None and now >= self._silent_at:
            self._silent_at = None
            self._give_up_target(f"no answer within {SILENCE * self.stack.config.timers.t1:g} s", now)
            # The transaction runs on until another target is found: there may be none that can be reached.
            self._look(now)
        if self.transaction is not None:
            self.transaction.handle_timer(now=now)
            self._drain(now)

    def _look(self, now: float) -> None:
        self.stack.ways.find(
            self._plan,
            self.usage.flow,
            self._found,
            now=now,
            tls_hostname=self.usage.tls_hostname,
            tried=self._way.tried,
            timeout=max(0.1, self._deadline - now),
        )

    def _found(self, way: Way, now: float) -> None:
        if self.abandoned or self._is_over:
            return
        # What is under way already needs no other way; unless that was refused with 503.
        if (
            self.transaction is not None
            and self._refused is None
            and (self.has_response or not self.is_waiting)
        ):
            return
        for attempt in way.attempts:
            self._note_attempt(attempt, now)
        refused, self._refused = self._refused, None
        if way.flow is not None:
            self._way = way
            self._begin(way.flow, now)
        elif refused is not None:
            self._tell(refused, now)
        elif self.transaction is None:
            self._fail_to_reach(now)

    def _begin(self, flow: Flow, now: float) -> None:
        request = self.request
        self.flow = flow
        # What is outside of a dialog makes the flow that everything later keeps to.
        if self.usage.flow is None or request.to.tag is None:
            self.usage.flow = flow
        self._stop()
        if "Via" not in request.headers:
            request.headers.prepend("Via", self.stack.via_for(flow))
            self.usage.note(RoutingDecision(now, request.method, self._explain(flow)))
        if request.method in ("INVITE", "REGISTER") and "Contact" not in request.headers:
            request.headers.add("Contact", self.usage.contact())
        timers = self.stack.config.timers
        kind = InviteClientTransaction if request.method == "INVITE" else ClientTransaction
        self.transaction = kind(request, reliable=flow.is_reliable, timers=timers, now=now)
        if self._way.others and not flow.is_reliable:
            self._silent_at = now + SILENCE * timers.t1
        self.key = (request.top_via.branch or "", request.method)
        self.keys[self.key] = flow
        self.stack.remember_client(self)
        self._drain(now)

    def _explain(self, flow: Flow) -> str:
        method, why = self.request.method, self._plan.text
        if not self._way.rule:
            return f"sent {method} {why}"
        text = f"sent {method} to {flow} from {self._way.rule}"
        return f"{text}; {why}" if why else text

    def _stop(self) -> None:
        """Take the request off the flow that it went by, so that it can go by another."""
        if self.transaction is not None:
            self.transaction = self._last = None
            self.request.headers.remove("Via")

    def _receive_late(self, key: tuple[str, str], response: Response, now: float) -> None:
        """
        Take the answer of a target that was given up for another.

        Inside of a dialog both are ways to one peer, and the first final answer ends it. Where both may have got an
        INVITE that begins a call, the other one runs on: what comes of it has to be ended, and it may still answer a
        call that this one refuses.
        """
        if self.request.method != "INVITE" or self.request.to.tag is not None:
            if response.status >= 200:
                self.transaction = None
                self.stack.forget_client(self)
        elif response.status >= 300 and self.is_waiting:
            self._late_refusal = response
            return
        elif response.status >= 200:
            self.usage.flow = self.keys.get(key, self.usage.flow)
        self._tell(response, now)

    def _tell(self, response: Response, now: float) -> None:
        """Hand a response on: one that is final, and what forks of an INVITE say after it."""
        is_of_fork = self.request.method == "INVITE" and response.status < 300
        if self._is_over and not is_of_fork:
            return
        self._is_over = self._is_over or response.status >= 200
        self._on_response(self, response, now)

    def _fail(self, reason: str, now: float) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_failure(self, reason, self._attempts, now)

    def _give_up_target(self, error: str, now: float) -> None:
        assert self.flow is not None
        hop = f"{format_address(self.flow.remote)} from {self._way.rule}"
        self._note_attempt(Attempt(hop, self.flow.transport, error), now)

    def _go_past(self, refused: Response, now: float) -> None:
        """Ask the next target: 503 says that this one could not (RFC 3263 section 4.3). Without one, it stands."""
        self.stack.forget_client(self)
        self.keys.clear()
        self._refused, self.has_response = refused, False
        self._give_up_target(f"{refused.status} {refused.reason}", now)
        self._look(now)

    def _note_attempt(self, attempt: Attempt, now: float) -> None:
        self._attempts += (attempt,)
        details = {"hop": attempt.hop, "transport": attempt.transport, "errno": attempt.errno}
        self.usage.note(RoutingDecision(now, self.request.method, str(attempt), details))

    def _fail_to_reach(self, now: float) -> None:
        tried = "; ".join(str(attempt) for attempt in self._attempts)
        text = f"could not send {self.request.method}: {tried}"
        if self._plan.hops and self._plan.text:
            text += f"; {self._plan.text}"
        details = {"attempts": len(self._attempts)}
        self.usage.note(RoutingDecision(now, self.request.method, text, details))
        self._fail("unreachable", now)

    def _drain(self, now: float) -> None:
        assert self.transaction is not None
        passed: Response | None = None
        for output in self.transaction.outputs():
            match output:
                case Send(Request() as request):
                    assert self.flow is not None
                    if request is not self._last:
                        self._last, self._data = request, bytes(request)
                    self.stack.transmit(self.flow, self._data, self.usage, now=now)
                case ResponseReceived(response) if response.status == 503 and self._way.others:
                    passed = response
                case ResponseReceived(response):
                    self._tell(response, now)
                case Terminated(timed_out):
                    self.stack.forget_client(self)
                    if timed_out and self._late_refusal is not None:
                        self._tell(self._late_refusal, now)
                    elif timed_out:
                        self._fail("no answer", now)
        if passed is not None:
            self._go_past(passed, now)
        self.stack.arm(self)
