"""
The SIP user agent as a pure object: bytes and intents in, bytes and events out, one deadline.

The driver feeds `receive`, `connection_opened`, `connection_lost` and `reached`, calls intents on the usages that
come out, then takes `outputs()` and arms one timer for `next_timer()`. Nothing here reads a clock or opens a socket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from offhook.trace import WireMessage

from .dialog import Dialog, DialogId
from .events import LegEvent
from .exchange import ClientExchange, Requester, ServerExchange
from .flow import Address, Flow, format_address
from .gate import Gate, Passed, Turned
from .headers import HeaderError
from .keep_alive import CRLF_PING, KeepAlives
from .message import (
    MessageError,
    Request,
    Response,
    create_response,
    parse_message,
    validate_request,
    validate_response,
)
from .outputs import Incoming, Output, Released, Transmit, UsageEvent
from .own_addresses import Listening, OwnAddresses
from .reasons import reasons_of
from .responses import dial_back_address, note_source, response_flow
from .route import Hop, Plan, Way, hop_for_uri
from .screening import ACCEPTED_TYPES, refuse_request
from .session_timer import SessionTimerConfig
from .timer_heap import Timed, TimerHeap
from .transaction import TimerValues
from .transaction.keys import MAGIC_COOKIE, MergeKey, ServerKey, server_key
from .uac import UacUsage, create_invite
from .uas import UasUsage
from .uri import SipUri
from .usage import InviteUsage
from .ways import Reach, Ways

__all__ = [
    "Incoming",
    "Listening",
    "Output",
    "Reach",
    "Released",
    "Stack",
    "StackConfig",
    "Transmit",
    "UsageEvent",
]

DEFAULT_ALLOW = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "NOTIFY", "UPDATE")


@dataclass(frozen=True)
class StackConfig:
    """What a user agent is, apart from its sockets."""

    public_host: str = ""
    "What Contact and Via say instead of the local address."
    user_agent: str = "Offhook/0.1"
    allow: tuple[str, ...] = DEFAULT_ALLOW
    supported: tuple[str, ...] = ()
    "Option tags that requests may require."
    timers: TimerValues = field(default_factory=TimerValues)
    refer_notify_timeout: float = 60.0
    "How long an accepted REFER may be silent before its outcome is `timeout`."
    keep_alive: float = 30.0
    "Seconds between CRLF pings on a connection that holds a dialog; carriers close quiet ones after about 120."
    session: SessionTimerConfig = field(default_factory=SessionTimerConfig)
    max_transactions: int = 50_000
    "Requests being answered at one time; above it new ones are dropped, so that a flood cannot fill the memory."


class Stack:
    """All transactions and calls of one user agent."""

    def __init__(
        self,
        config: StackConfig,
        *,
        new_token: Callable[[], str],
        accept_calls: bool = True,
        gate: Gate | None = None,
        now: float = 0.0,
    ) -> None:
        self.config = config
        self._gate = gate
        self.new_token = new_token
        self.counters: Counter[str] = Counter()
        "How often things happened that have no other trace: `malformed`, `stray_response`, `stray_ack`, ..."
        self.allow = ", ".join(config.allow)
        self.supported = (*config.supported, *(("timer",) if config.session.interval else ()))
        self.capabilities = [("Allow", self.allow), ("Supported", ", ".join(self.supported))]
        self.draining = False  # OPTIONS gets 503, as an INVITE would (RFC 3261 section 11.2)
        self._accept_calls = accept_calls
        self.now = now
        "The time of the latest input."
        self._addresses = OwnAddresses(config.public_host)
        self._outputs: list[Output] = []
        self._timers = TimerHeap()
        self._sequence = 0
        self._server: dict[ServerKey, ServerExchange] = {}
        self._merged: dict[MergeKey, ServerExchange] = {}
        self._client: dict[tuple[str, str], ClientExchange] = {}
        self._dialogs: dict[DialogId, InviteUsage] = {}
        self._dialogs_of: dict[InviteUsage, list[DialogId]] = {}
        self.ways = Ways(self._addresses, lambda reach: self._outputs.append(reach))
        self._open: set[int] = set()
        self._keep_alives = KeepAlives(
            self._timers,
            interval=config.keep_alive,
            ping=lambda flow: self._outputs.append(Transmit(flow, CRLF_PING)),
        )

    # Inputs from the driver.

    def listen(self, transport: str, host: str, port: int) -> None:
        """Note an address that is bound: Contact and Via are made of these."""
        self._addresses.add(Listening(transport, host, port))

    def connection_opened(self, flow: Flow) -> None:
        assert flow.connection is not None
        self._open.add(flow.connection)

    def connection_lost(self, flow: Flow, *, now: float) -> None:
        """Note that a connection closed: what waits on it goes another way or fails."""
        self.now = now
        assert flow.connection is not None
        self._open.discard(flow.connection)
        self._keep_alives.forget(flow.connection)
        for exchange in {e for e in self._client.values() if e.flow == flow}:
            exchange.connection_lost(now=now)

    def receive(self, data: bytes, flow: Flow, *, now: float) -> None:
        """Handle one message: a datagram, or what the framer cut out of a stream. Never raises for bad input."""
        self.now = now
        try:
            message = parse_message(data)
            if isinstance(message, Request):
                validate_request(message)
                self._receive_request(message, data, flow, now)
            else:
                validate_response(message)
                self._receive_response(message, data, flow, now)
        except MessageError as exc:
            self._refuse_malformed(exc, flow)

    def reached(self, key: int, way: Way, *, now: float) -> None:
        """Answer a `Reach`."""
        self.now = now
        self.ways.reached(key, way, now=now)

    def next_timer(self) -> float | None:
        """Return when `handle_timer` must be called, or `None`. It may come early, never late."""
        return self._timers.next_timer()

    def handle_timer(self, *, now: float) -> None:
        """Fire everything that is due."""
        self.now = now
        self._timers.handle_timer(now=now)

    def outputs(self) -> list[Output]:
        """Take everything that happened since the last call, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    # Intents.

    def invite(
        self,
        uri: str,
        *,
        from_uri: str,
        sdp: bytes,
        now: float,
        headers: Iterable[tuple[str, str]] = (),
        via: tuple[str, str, int] | None = None,
        tls_hostname: str = "",
        credentials: tuple[str, str] | None = None,
    ) -> UacUsage:
        """
        Place a call. `via` is the hop to send it to, when that is not what the URI names; `credentials` are the user
        and password for a peer that asks for them.

        Raises `UriError`, `HeaderError` and `RouteError` for what cannot be sent.
        """
        self.now = now
        target = SipUri.parse(uri)
        if via is not None:
            hop = Hop(*via, "the hop that was asked for", via[0] == "tls", trusted=True, fixed=True)
        else:
            hop = hop_for_uri(target, "Request-URI", trusted=True)
        request = create_invite(self, uri, from_uri, sdp, headers)
        usage = UacUsage(self, request, credentials)
        usage.tls_hostname = tls_hostname
        usage.start(Plan(None, (hop,), ""), now=now)
        return usage

    @property
    def call_count(self) -> int:
        """Usages that are not forgotten yet."""
        return len(self._dialogs_of)

    @property
    def is_settled(self) -> bool:
        """Whether nothing that we sent, or mean to send, waits for the peer: no BYE is on its way any more."""
        waiting = any(exchange.is_waiting for exchange in self._client.values())
        return not waiting and not self.ways and not any(usage.is_leaving for usage in self._dialogs_of)

    @property
    def transaction_count(self) -> int:
        return len(self._server) + len(self._client)

    # For usages and exchanges.

    def emit(self, usage: InviteUsage, event: LegEvent) -> None:
        self._outputs.append(UsageEvent(usage, event))

    def next_key(self) -> int:
        self._sequence += 1
        return self._sequence

    def new_number(self, below: int) -> int:
        return int(self.new_token(), 16) % below

    def arm(self, timed: Timed) -> None:
        self._timers.arm(timed)

    def transmit(self, flow: Flow, data: bytes, usage: Requester | None, *, now: float) -> None:
        self._outputs.append(Transmit(flow, data))
        if usage is not None:
            self._note_wire(usage, "out", flow, data, now)

    def send_response(self, exchange: ServerExchange, data: bytes, *, now: float) -> None:
        """Send by the request's connection or to its source; dial back when the connection is gone."""
        flow = exchange.flow
        usage = exchange.usage
        if self.is_open(flow):
            self.transmit(response_flow(exchange.request, flow), data, usage, now=now)
            return

        def found(way: Way, now: float) -> None:
            if way.flow is None:
                self.counters["response_unsendable"] += 1
            else:
                self.transmit(way.flow, data, usage, now=now)

        host, port = dial_back_address(exchange.request, flow)
        hop = Hop(flow.transport, host, port, "Via", flow.transport == "tls")
        self.ways.find(
            Plan(None, (hop,), "back to the Via"),
            flow,
            found,
            now=now,
            tls_hostname=usage.tls_hostname if usage else "",
        )

    def is_open(self, flow: Flow) -> bool:
        return flow.connection is None or flow.connection in self._open

    def via_for(self, flow: Flow) -> str:
        """Return a Via with a new branch for requests on that flow."""
        return self._addresses.via_for(flow, MAGIC_COOKIE + self.new_token())

    def contact_for(self, flow: Flow, *, secure: bool = False) -> str:
        return self._addresses.contact_for(flow, secure=secure)

    def remember_client(self, exchange: ClientExchange) -> None:
        assert exchange.key is not None
        self._client[exchange.key] = exchange

    def forget_client(self, exchange: ClientExchange) -> None:
        for key in exchange.keys:
            self._client.pop(key, None)
        self._timers.disarm(exchange)

    def forget_server(self, exchange: ServerExchange) -> None:
        self._server.pop(exchange.key, None)
        if self._merged.get(exchange.copy_key) is exchange:
            del self._merged[exchange.copy_key]
        self._timers.disarm(exchange)
        exchange.usage = None

    def remember_dialog(self, dialog: Dialog, usage: InviteUsage) -> None:
        if dialog.id not in self._dialogs:
            self._dialogs[dialog.id] = usage
            self._dialogs_of.setdefault(usage, []).append(dialog.id)

    def adopt(self, exchange: ServerExchange, usage: UasUsage) -> None:
        """Know a call of an earlier process: its dialog, and its INVITE where that is not answered."""
        self.remember_dialog(usage.dialog, usage)
        if usage.state == "early":
            self._server[exchange.key] = exchange

    def standing_address(self, transport: str, local: Address) -> Address:
        """Return the address to send from, which another process had under that name."""
        return self._addresses.standing(transport, local)

    def forget_usage(self, usage: InviteUsage) -> None:
        for key in self._dialogs_of.pop(usage, ()):
            del self._dialogs[key]
        self._timers.disarm(usage)
        self._outputs.append(Released(usage))

    def hold(self, flow: Flow) -> None:
        """Keep a connection alive for one more dialog."""
        self._keep_alives.hold(flow, now=self.now)

    def is_held(self, connection: int) -> bool:
        return self._keep_alives.holds(connection)

    def release(self, connection: int) -> None:
        self._keep_alives.release(connection)

    # Requests.

    def _receive_request(self, request: Request, data: bytes, flow: Flow, now: float) -> None:
        note_source(request, flow)
        method = request.method
        key = server_key(request, "INVITE" if method == "ACK" else method)
        exchange = self._server.get(key)
        if exchange is not None:
            if exchange.usage is not None:
                self._note_wire(exchange.usage, "in", flow, data, now)
            exchange.receive_request(request, now=now)
            return
        usage = self._dialogs.get((request.call_id, request.to.tag or "", request.from_.tag or ""))
        if usage is not None:
            self._note_wire(usage, "in", flow, data, now)
        if method == "ACK":
            if usage is None:
                self.counters["stray_ack"] += 1
            else:
                usage.receive_ack(request, now=now)
        elif len(self._server) >= self.config.max_transactions:
            self.counters["overload"] += 1
        elif usage is not None and not usage.allowance.take(method, now=now):
            self.counters["too_many_in_dialog"] += 1
            self._respond_stateless(request, 500, [("Retry-After", "5")], flow)
        elif isinstance(verdict := self._judge(request, flow, usage, now), Passed):
            exchange = ServerExchange(self, request, flow, key)
            exchange.usage, exchange.peer = usage, verdict.peer
            self._serve(exchange, data, now)
        elif verdict.status:
            self._respond_stateless(request, verdict.status, verdict.headers, flow)

    def _judge(self, request: Request, flow: Flow, usage: InviteUsage | None, now: float) -> Passed | Turned:
        of_invite = request.method == "CANCEL" and server_key(request, "INVITE") in self._server
        if self._gate is None or usage is not None or of_invite:
            return Passed()
        return self._gate.judge(request, flow, now=now)

    def _serve(self, exchange: ServerExchange, data: bytes, now: float) -> None:
        request, usage = exchange.request, exchange.usage
        self._server[exchange.key] = exchange
        if request.method == "CANCEL":
            self._cancel(exchange, data, now)
            return
        other = self._merged.get(exchange.copy_key)
        # One that was refused already is no second path but a second try: a carrier that fails over to us again.
        merged = other is not None and request.to.tag is None and not other.transaction.is_refused
        refused = refuse_request(
            request,
            allow=self.config.allow,
            supported=self.supported,
            session=self.config.session,
            merged=merged,
        )
        if refused is not None:
            exchange.respond(refused.status, refused.reason, now=now, headers=refused.headers)
            return
        self._merged[exchange.copy_key] = exchange
        if usage is not None:
            usage.receive_request(exchange, now=now)
        elif request.to.tag is not None:
            exchange.respond(481, now=now)
        else:
            self._serve_outside(exchange, data, now)

    def _serve_outside(self, exchange: ServerExchange, data: bytes, now: float) -> None:
        """Answer a request that belongs to no dialog."""
        match exchange.request.method:
            case "INVITE" if self._accept_calls:
                usage = UasUsage(self, exchange)
                exchange.usage = usage
                self.remember_dialog(usage.dialog, usage)
                self._note_wire(usage, "in", exchange.flow, data, now)
                exchange.respond(100, now=now)
                self._outputs.append(Incoming(usage))
            case "INVITE":
                exchange.respond(480, now=now)
            case "OPTIONS":
                accept = ("Accept", ", ".join(ACCEPTED_TYPES))
                # Without Retry-After, which would keep the peer's BYEs away as well (section 21.5.4).
                status = 503 if self.draining else 200
                exchange.respond(status, now=now, headers=[*self.capabilities, accept])
            case "BYE" | "UPDATE" | "PRACK" | "INFO":
                exchange.respond(481, now=now)
            case "NOTIFY":
                event = (exchange.request.headers.get("Event") or "").partition(";")[0].strip().lower()
                status, headers = (481, []) if event == "refer" else (489, [("Allow-Events", "refer")])
                exchange.respond(status, now=now, headers=headers)
            case _:
                exchange.respond(405, now=now, headers=[("Allow", self.allow)])

    def _cancel(self, exchange: ServerExchange, data: bytes, now: float) -> None:
        """RFC 3261 section 9.2: 200 to the CANCEL, then 487 to the INVITE unless it has its final response."""
        target = self._server.get(server_key(exchange.request, "INVITE"))
        if target is None:
            exchange.respond(481, now=now)
            return
        exchange.to_tag = target.to_tag
        exchange.usage = usage = target.usage
        if usage is not None:
            self._note_wire(usage, "in", exchange.flow, data, now)
        exchange.respond(200, now=now)
        if target.is_answered:
            return
        if isinstance(usage, UasUsage) and usage.invite is target.request:
            usage.receive_cancel(reasons_of(exchange.request), now=now)
        elif usage is not None:
            usage.respond(target.request, 487, now=now)

    def _refuse_malformed(self, exc: MessageError, flow: Flow) -> None:
        """Answer without a transaction what could be read well enough; the rest is dropped and counted."""
        request = exc.request
        unwelcome = self._gate is not None and not self._gate.explains_to(flow)
        if exc.status_hint is None or request is None or request.method == "ACK" or unwelcome:
            self.counters["dropped"] += 1
            return
        self.counters["malformed"] += 1
        try:
            note_source(request, flow)
            # One line of ASCII: the fault quotes what the peer sent.
            fault = "".join(c if " " <= c <= "~" and c not in '"\\' else "'" for c in exc.text)[:120]
            warning = f'399 {self.config.user_agent.partition("/")[0]} "{fault}"'
            self._respond_stateless(request, exc.status_hint, [("Warning", warning)], flow)
        except (HeaderError, ValueError):
            self.counters["dropped"] += 1

    def _respond_stateless(
        self, request: Request, status: int, headers: Iterable[tuple[str, str]], flow: Flow
    ) -> None:
        """Answer once and remember nothing (RFC 3261 section 8.2.7)."""
        response = create_response(request, status, to_tag=self.new_token(), headers=headers)
        self.transmit(response_flow(request, flow), bytes(response), None, now=self.now)

    # Responses.

    def _receive_response(self, response: Response, data: bytes, flow: Flow, now: float) -> None:
        exchange = self._client.get((response.top_via.branch or "", response.cseq.method))
        if exchange is not None:
            self._note_wire(exchange.usage, "in", flow, data, now)
            exchange.receive_response(response, now=now)
            return
        if response.cseq.method == "INVITE" and 200 <= response.status < 300:
            usage = self._dialogs.get((response.call_id, response.from_.tag or "", response.to.tag or ""))
            if usage is not None and usage.receive_2xx(response, now=now):
                return
        self.counters["stray_response"] += 1

    def _note_wire(self, usage: Requester, direction: str, flow: Flow, data: bytes, now: float) -> None:
        usage.note(
            WireMessage(
                now,
                "in" if direction == "in" else "out",
                flow.transport,
                format_address(flow.local),
                format_address(flow.remote),
                data,
            )
        )
