"""Registrations on a stack: what joins the pure machine to transactions, flows and timers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .exchange import ClientExchange
from .flow import Flow
from .headers import Headers
from .keep_alive import CRLF_PING
from .message import Request, Response
from .registration import Ping, Registration, RegistrationConfig, RegistrationState, SendRegister, Status
from .route import Attempt, Hop, Plan, hop_for_uri
from .timer_heap import Alarm
from .uri import SipUri

if TYPE_CHECKING:
    from offhook.trace import RoutingDecision, StateChange, WireMessage

    from .stack import Stack

__all__ = ["REGISTRAR", "Registered", "Registrations"]

REGISTRAR = "registrar"
"The rule of a registrar's hop; who resolves it may note the addresses."


@dataclass(frozen=True, slots=True)
class Registered:
    """One registration, to look at and to end."""

    config: RegistrationConfig
    usage: _RegistrationUsage

    @property
    def status(self) -> Status:
        return self.usage.machine.status

    @property
    def flow(self) -> Flow | None:
        """The flow that we registered by; calls come by it."""
        return self.usage.flow


class Registrations:
    """All registrations of a user agent."""

    def __init__(self, stack: Stack, *, draw: Callable[[], float]) -> None:
        self._stack = stack
        self._draw = draw
        self._usages: list[_RegistrationUsage] = []

    def add(
        self, config: RegistrationConfig, on_change: Callable[[Status], None], *, now: float
    ) -> Registered:
        """Register, and stay registered until `end`. Raises `UriError` and `RouteError` for a bad registrar."""
        usage = _RegistrationUsage(self._stack, config, on_change, self._draw)
        self._usages.append(usage)
        usage.start(now=now)
        return Registered(config, usage)

    def end(self, registered: Registered, *, now: float) -> None:
        """Have the registrar forget us; the status becomes `ENDED`."""
        registered.usage.end(now=now)

    def connection_lost(self, flow: Flow, *, now: float) -> None:
        """Note that a connection closed: who was registered by it registers again."""
        self._usages = [usage for usage in self._usages if not usage.is_over]
        for usage in self._usages:
            usage.connection_lost(flow, now=now)


class _RegistrationUsage:
    """What a REGISTER's exchange needs, in place of a call: a flow, a Contact, somewhere to put notes."""

    def __init__(
        self,
        stack: Stack,
        config: RegistrationConfig,
        on_change: Callable[[Status], None],
        draw: Callable[[], float],
    ) -> None:
        self.flow: Flow | None = None
        self.tls_hostname = config.tls_hostname
        self.armed: Alarm | None = None
        self.machine = Registration(config, new_token=stack.new_token, draw=draw)
        self._stack = stack
        self._config = config
        self._on_change = on_change
        self._hop = _hop(config)
        self._call_id = stack.new_token() + stack.new_token()
        self._from = f"<{config.aor}>;tag={stack.new_token()}"
        self._latest: ClientExchange | None = None
        self._held: int | None = None

    @property
    def is_over(self) -> bool:
        return self.machine.status.state is RegistrationState.ENDED

    def start(self, *, now: float) -> None:
        self.machine.start(now=now)
        self._drain(now)

    def end(self, *, now: float) -> None:
        self.machine.end(now=now)
        self._drain(now)

    def connection_lost(self, flow: Flow, *, now: float) -> None:
        if flow == self.flow:
            self.flow = self._held = None
            self.machine.flow_lost(now=now)
            self._drain(now)

    def contact(self) -> str:
        assert self.flow is not None
        secure = self._config.registrar[:5].lower() == "sips:"
        address = self._stack.contact_for(self.flow, secure=secure)
        scheme, _, rest = address.partition(":")
        return f"{scheme}:{self._config.contact_user}@{rest}"

    def note(self, item: WireMessage | StateChange | RoutingDecision) -> None:
        """Its story is told by its changes of state; there is no call whose timeline would hold more."""

    def next_timer(self) -> float | None:
        return self.machine.next_timer()

    def handle_timer(self, *, now: float) -> None:
        self.machine.handle_timer(now=now)
        self._drain(now)

    def _drain(self, now: float) -> None:
        while outputs := self.machine.outputs():
            for output in outputs:
                match output:
                    case SendRegister():
                        self._send(output, now)
                    case Ping():
                        if self.flow is not None:
                            self._stack.transmit(self.flow, CRLF_PING, None, now=now)
                    case Status():
                        self._changed(output)
        self._stack.arm(self)

    def _send(self, register: SendRegister, now: float) -> None:
        request = Request(
            "REGISTER",
            self._config.request_uri,
            headers=Headers(
                [
                    ("Max-Forwards", "70"),
                    ("From", self._from),
                    ("To", f"<{self._config.aor}>"),
                    ("Call-ID", self._call_id),
                    ("CSeq", f"{register.cseq} REGISTER"),
                    *register.headers,
                    ("User-Agent", self._stack.config.user_agent),
                    ("Allow", self._stack.allow),
                ]
            ),
        )
        exchange = ClientExchange(
            self._stack, self, request, on_response=self._receive_response, on_failure=self._receive_failure
        )
        self._latest = exchange
        alive = self.flow is not None and self._stack.is_open(self.flow)
        if not alive:
            self.flow = None
        exchange.start(Plan(self.flow, (self._hop,), f"to {self._hop}"), now=now)

    def _receive_response(self, exchange: ClientExchange, response: Response, now: float) -> None:
        if exchange is not self._latest or response.status < 200:
            return
        contact = exchange.request.headers.get("Contact") or ""
        is_udp = exchange.flow is not None and not exchange.flow.is_reliable
        self.machine.receive_response(response, now=now, contact=contact, is_udp=is_udp)
        self._drain(now)

    def _receive_failure(
        self, exchange: ClientExchange, reason: str, attempts: tuple[Attempt, ...], now: float
    ) -> None:
        if exchange is not self._latest:
            return
        tried = "; ".join(str(attempt) for attempt in attempts)
        self._release()
        self.flow = None  # the next try looks for the registrar anew
        self.machine.request_failed(f"{reason} ({tried})" if tried else reason, now=now)
        self._drain(now)

    def _changed(self, status: Status) -> None:
        if status.state is RegistrationState.REGISTERED and self.flow is not None:
            self._hold(self.flow)
        elif status.state is RegistrationState.ENDED:
            self._release()
        self._on_change(status)

    def _hold(self, flow: Flow) -> None:
        """Keep the connection open: calls come by it."""
        if flow.connection is not None and flow.connection != self._held:
            self._release()
            self._held = flow.connection
            self._stack.hold(flow)

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._stack.release(held)


def _hop(config: RegistrationConfig) -> Hop:
    return hop_for_uri(SipUri.parse(config.registrar), REGISTRAR, trusted=True)
