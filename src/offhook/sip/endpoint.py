"""The SIP user agent with its sockets: pumps the stack, arms one timer, tells the legs' listeners."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from offhook.clock import Clock
from offhook.ids import opaque_id, sip_token

from .events import (
    Acknowledged,
    Answered,
    Cancelled,
    Confirmed,
    Ended,
    LegEnded,
    LegEvent,
    Offered,
    Parted,
    Provisional,
    ReferUpdated,
    Refreshed,
    Refused,
    Replied,
    Requested,
)
from .flow import Flow, format_address
from .gate import Gate
from .leg import Leg, LegListener, LegRequestError
from .message_counts import MessageCounts
from .outputs import Incoming, Released, Transmit, UsageEvent
from .own_addresses import Listening
from .registration import RegistrationConfig, Status
from .registrations import Registered, Registrations
from .resolver import Resolver
from .session_timer import SessionTimerConfig
from .snapshot import revive
from .stack import DEFAULT_ALLOW, Stack, StackConfig
from .telling import Telling
from .transaction import TimerValues
from .transport import SipTransport, TransportLimits, parse_listen
from .usage import InviteUsage, Trace
from .wayfinder import Wayfinder
from .ways import Reach

__all__ = ["Endpoint", "EndpointConfig", "Leg", "LegEnded", "LegListener", "LegRequestError"]

log = logging.getLogger("offhook.sip")

TOO_MANY_CONNECTIONS = "too many connections"


@dataclass(frozen=True)
class EndpointConfig:
    """What an endpoint is and where it listens."""

    listen: tuple[str, ...]
    "`udp:127.0.0.1:5060`, `tcp:...`, `tls:[::1]:5061`; port 0 takes a free one."
    public_host: str = ""
    "What Contact and Via say, when it is not the bound address."
    user_agent: str = "Offhook/0.1"
    tls: ssl.SSLContext | None = None
    "Server context; needed by a `tls:` listen address."
    tls_client: ssl.SSLContext | None = None
    "For connections that we dial; the system's roots when absent."
    allow: tuple[str, ...] = DEFAULT_ALLOW
    timers: TimerValues = field(default_factory=TimerValues)
    limits: TransportLimits = field(default_factory=TransportLimits)
    refer_notify_timeout: float = 60.0
    "Seconds that an accepted REFER may be silent before its outcome is `timeout`."
    keep_alive: float = 30.0
    "Seconds between pings on connections that hold a dialog."
    session: SessionTimerConfig = field(default_factory=SessionTimerConfig)
    "Session timers (RFC 4028)."


def admit_all(flow: Flow) -> bool:
    return True


def know_all(flow: Flow) -> bool:
    return False


def ignore_refused(flow: Flow, reason: str) -> None:
    return None


def ignore_registrar(host: str, addresses: tuple[str, ...]) -> None:
    return None


class Endpoint:
    """
    `await start()`, then legs come by `on_invite` and go by `invite()`.

    `on_invite` must set `leg.listener` before it returns, unless it refused the leg. Without `on_invite`, calls are
    answered 480. `admit` judges the source address before anything is read from it, `gate` each request that belongs to
    no call yet. `is_stranger` says who gets few connections; `on_refused` is told of sources that were not admitted,
    and of connections that were too many, `on_registrar` of every registrar's name and its addresses, before anything
    is sent there.
    """

    def __init__(
        self,
        config: EndpointConfig,
        *,
        clock: Clock,
        on_invite: Callable[[Leg], None] | None = None,
        admit: Callable[[Flow], bool] = admit_all,
        on_refused: Callable[[Flow, str], None] = ignore_refused,
        gate: Gate | None = None,
        is_stranger: Callable[[Flow], bool] = know_all,
        on_registrar: Callable[[str, tuple[str, ...]], None] = ignore_registrar,
        resolver: Resolver | None = None,
    ) -> None:
        self.config = config
        self.addresses: list[Listening] = []
        "What was bound; set by `start`."
        self._clock = clock
        self._on_invite = on_invite
        self._admit = admit
        self._on_refused = on_refused
        self._is_stranger = is_stranger
        self._stack = Stack(
            StackConfig(
                public_host=config.public_host,
                user_agent=config.user_agent,
                allow=config.allow,
                timers=config.timers,
                refer_notify_timeout=config.refer_notify_timeout,
                keep_alive=config.keep_alive,
                session=config.session,
            ),
            new_token=sip_token,
            accept_calls=on_invite is not None,
            gate=gate,
            now=clock.monotonic(),
        )
        self._transport = SipTransport(
            self, limits=config.limits, tls=config.tls, tls_client=config.tls_client
        )
        self._wayfinder = Wayfinder(self._transport, resolver or Resolver(), on_registrar)
        self.registrations = Registrations(self._stack, draw=random.SystemRandom().random)
        self._telling = Telling(self._tell_output, self.read_waiting)
        self._is_between = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._replies: dict[int, asyncio.Future[Replied]] = {}
        self._reaching: set[asyncio.Task[None]] = set()
        self._closed = False
        self._pumped = asyncio.Event()
        self.messages = MessageCounts()
        "What came and went, repeats included; not what `admit` turned away."

    async def start(self) -> None:
        """Bind every address. Raises `OSError` and `ValueError`; nothing stays bound then."""
        self._loop = asyncio.get_running_loop()
        try:
            bound = await self._transport.listen([parse_listen(text) for text in self.config.listen])
        except (OSError, ValueError):
            self._transport.close()
            raise
        for listener in bound:
            self._stack.listen(listener.transport, listener.host, listener.port)
            self.addresses.append(Listening(listener.transport, listener.host, listener.port))

    def invite(
        self,
        uri: str,
        *,
        from_uri: str,
        sdp: bytes,
        headers: Iterable[tuple[str, str]] = (),
        via: tuple[str, str, int] | None = None,
        tls_hostname: str = "",
        credentials: tuple[str, str] | None = None,
    ) -> Leg:
        """
        Place a call and return its leg; set `leg.listener` before awaiting anything.

        `via` is `(transport, host, port)` of the hop to use instead of what the URI names; `tls_hostname` is for a hop
        that is a bare address, `credentials` are user and password for a peer that asks. Raises `ValueError`
        (`UriError`, `HeaderError`, `RouteError`) for what cannot be sent.
        """
        usage = self._stack.invite(
            uri,
            from_uri=from_uri,
            sdp=sdp,
            headers=headers,
            via=via,
            tls_hostname=tls_hostname,
            credentials=credentials,
            now=self.now(),
        )
        leg = Leg(self, usage, opaque_id("leg"))
        self.pump()
        return leg

    def revive(self, snapshot: Mapping[str, Any]) -> Leg:
        """Return the leg of another process's `Leg.snapshot`, to refuse it or to hang up. Raises `SnapshotError`."""
        return Leg(self, revive(self._stack, snapshot, now=self.now()), opaque_id("leg"))

    def register(self, config: RegistrationConfig, on_change: Callable[[Status], None]) -> Registered:
        """
        Register with a registrar and stay so; `on_change` is told of every change, `unregister` ends it.

        Raises `ValueError` (`UriError`, `RouteError`) for a registrar that cannot be.
        """

        def changed(status: Status) -> None:
            try:
                on_change(status)
            except Exception:
                log.exception("listener failed", extra={"event": "sip.listener.failed", "told": "Status"})

        registered = self.registrations.add(config, changed, now=self.now())
        self.pump()
        return registered

    def unregister(self, registered: Registered) -> None:
        """Have the registrar forget us. `settle` waits for its answer."""
        self.registrations.end(registered, now=self.now())
        self.pump()

    @property
    def counters(self) -> Counter[str]:
        """How often things happened that no leg's trace shows: `malformed`, `stray_response`, `dropped`, ..."""
        return self._stack.counters

    async def settle(self, *, timeout: float) -> bool:
        """
        Wait until every request that was sent, or waits to be, has its answer; `False` when `timeout` came first.

        For the end of a node: a BYE that needs a new connection, or an ACK before it, is on its way only then.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self._stack.is_settled:
                    self._pumped.clear()
                    await self._pumped.wait()
        except TimeoutError:
            return False
        return True

    def take_calls(self, does: bool) -> None:
        """Answer OPTIONS outside of calls as an INVITE would be from now on: dispatchers take a node out by its 503."""
        self._stack.draining = not does

    async def close(self) -> None:
        """Stop listening and close every socket. Sends nothing: hang up, and `settle`, first."""
        self._closed = True
        self._telling.close()
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()
        for future in self._replies.values():
            if not future.done():
                future.set_result(Replied(0, None, "the endpoint was closed"))
        for task in self._reaching:
            task.cancel()
        await asyncio.gather(*self._reaching, return_exceptions=True)
        # Closed transports say so in the next turns of the loop.
        await asyncio.sleep(0)

    # What the sockets say (TransportUser).

    def admit(self, flow: Flow) -> bool:
        try:
            admitted = self._admit(flow)
            if not admitted:
                self._on_refused(flow, "source not admitted")
        except Exception:
            log.exception("admission failed", extra={"event": "sip.admit.failed", "source": flow.remote[0]})
            return False
        return admitted

    def is_stranger(self, flow: Flow) -> bool:
        return self._is_stranger(flow)

    def connection_refused(self, flow: Flow) -> None:
        self._on_refused(flow, TOO_MANY_CONNECTIONS)

    def message_received(self, data: bytes, flow: Flow) -> None:
        if not self._is_between:
            self._telling.relieve()
        self.messages.count("in", data)
        # One message must never end the endpoint, whatever it holds and whatever bug it meets.
        try:
            self._stack.receive(data, flow, now=self.now())
        except Exception:
            self._stack.counters["failed"] += 1
            log.exception(
                "message failed",
                extra={"event": "sip.message.failed", "source": format_address(flow.remote)},
            )
        self.pump()

    def connection_opened(self, flow: Flow) -> None:
        self._stack.connection_opened(flow)

    def connection_lost(self, flow: Flow) -> None:
        self._stack.connection_lost(flow, now=self.now())
        self.registrations.connection_lost(flow, now=self.now())
        if not self._closed:
            self.pump()

    def holds(self, flow: Flow) -> bool:
        return flow.connection is not None and self._stack.is_held(flow.connection)

    # What legs need (LegDriver).

    def now(self) -> float:
        return self._clock.monotonic()

    def pump(self) -> None:
        """Carry out what the stack decided. Listeners are told in later turns, never inside a leg's intent."""
        released = []
        for output in self._stack.outputs():
            match output:
                case Transmit(flow, data):
                    self.messages.count("out", data)
                    self._transport.send(flow, data)
                case Reach():
                    self._start_reaching(output)
                case Released():
                    released.append(output)
                case _:
                    self._telling.add(output)
        for each in released:
            self._telling.add(each)  # after all else that is to be told of them
        self._pumped.set()
        self._arm()

    async def reply(self, usage: InviteUsage, key: int, timeout: float) -> Replied | None:
        future: asyncio.Future[Replied] = self._loop.create_future()
        self._replies[key] = future
        self.pump()
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            return None
        finally:
            del self._replies[key]
            if not future.done() or future.cancelled():
                usage.stop_waiting(key, now=self.now())
                self.pump()

    def guard(self, usage: InviteUsage, tracer: Callable[[Trace], None]) -> Callable[[Trace], None]:
        call_id = usage.call_id  # and not the leg, which holds this

        def guarded(trace: Trace) -> None:
            try:
                tracer(trace)
            except Exception:
                log.exception("trace failed", extra={"event": "sip.trace.failed", "call_id": call_id})

        return guarded

    def read_waiting(self) -> None:
        """
        Take the datagrams that have come meanwhile, so that a new INVITE has its 100; nothing is told inside.

        Legs may be further afterwards than their listeners know, as between any two turns of the loop.
        """
        if self._is_between or self._telling.is_full:
            return
        self._is_between = True
        try:
            self._transport.read_datagrams()
        finally:
            self._is_between = False

    # The one timer.

    def _arm(self) -> None:
        deadline = self._stack.next_timer()
        if deadline is None or self._closed:
            return
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_later(max(0.001, deadline - self.now()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        try:
            self._stack.handle_timer(now=self.now())
        except Exception:
            self._stack.counters["failed"] += 1
            log.exception("timer failed", extra={"event": "sip.timer.failed"})
        self.pump()

    # Listeners.

    def _tell_output(self, output: Incoming | UsageEvent | Released) -> None:
        if isinstance(output, Incoming):
            self._tell_incoming(output)
        elif isinstance(output, Released):
            _let_go(output.usage)
        else:
            self._tell(output.usage, output.event)

    def _tell_incoming(self, incoming: Incoming) -> None:
        leg = Leg(self, incoming.usage, opaque_id("leg"))
        assert self._on_invite is not None
        try:
            self._on_invite(leg)
            if leg.listener is None and leg.state in ("calling", "early"):
                raise RuntimeError("on_invite neither set leg.listener nor refused the leg")
        except Exception:
            log.exception("call failed", extra={"event": "sip.invite.failed", "call_id": leg.call_id})
            self._refuse_after_fault(leg)

    def _refuse_after_fault(self, leg: Leg) -> None:
        if leg.state in ("calling", "early"):
            leg.refuse(500)
        else:
            leg.hangup()

    def _tell(self, usage: InviteUsage, event: LegEvent) -> None:
        if isinstance(event, Replied):
            future = self._replies.get(event.key)
            if future is not None and not future.done():
                future.set_result(event)
            return
        leg = usage.owner
        if leg is None:
            return
        assert isinstance(leg, Leg)
        if leg.listener is None:
            if isinstance(event, Offered | Requested):
                leg.respond(event.request, 480)
            return
        try:
            _call_listener(leg.listener, leg, event)
        except Exception:
            log.exception(
                "listener failed",
                extra={
                    "event": "sip.listener.failed",
                    "call_id": leg.call_id,
                    "told": type(event).__name__,
                },
            )
            if isinstance(event, Offered | Requested):
                leg.respond(event.request, 500)

    # Ways to peers.

    def _start_reaching(self, reach: Reach) -> None:
        task = self._loop.create_task(self._reach(reach))
        self._reaching.add(task)
        task.add_done_callback(self._reaching.discard)

    async def _reach(self, reach: Reach) -> None:
        way = await self._wayfinder.find(reach)
        try:
            self._stack.reached(reach.key, way, now=self.now())
        except Exception:
            self._stack.counters["failed"] += 1
            log.exception("reaching failed", extra={"event": "sip.reach.failed"})
        self.pump()


def _let_go(usage: InviteUsage) -> None:
    """Part a leg from its usage, and let its listener part from it: then neither has to wait for the collector."""
    leg, usage.owner = usage.owner, None
    if isinstance(leg, Leg) and leg.listener is not None:
        try:
            leg.listener.leg_released(leg)
        except Exception:
            log.exception(
                "listener failed",
                extra={"event": "sip.listener.failed", "call_id": leg.call_id, "told": "Released"},
            )


def _call_listener(listener: LegListener, leg: Leg, event: LegEvent) -> None:
    match event:
        case Provisional(response):
            listener.leg_provisional(leg, response)
        case Answered(response):
            listener.leg_answered(leg, response)
        case Refused(refusing, reason, attempts):
            tried = "; ".join(str(attempt) for attempt in attempts)
            listener.leg_refused(leg, refusing, f"{reason} ({tried})" if tried else reason)
        case Cancelled(reason_header):
            listener.leg_cancelled(leg, reason_header)
        case Confirmed():
            listener.leg_confirmed(leg)
        case Acknowledged(ack):
            listener.leg_acknowledged(leg, ack)
        case Offered(request):
            listener.leg_offered(leg, request)
        case Requested(request):
            listener.leg_requested(leg, request)
        case ReferUpdated(update):
            listener.leg_refer_updated(leg, update)
        case Refreshed(offer, answering):
            listener.leg_refreshed(leg, offer, answering)
        case Ended(ended):
            listener.leg_ended(leg, ended)
        case Parted():
            listener.leg_parted(leg)
        case Replied():
            raise AssertionError("replies go to whoever waits for them")
