"""The sockets of an endpoint: UDP, TCP and TLS. Bytes and flows only; what they mean is the stack's affair."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, cast

from . import datagrams
from .datagrams import DatagramSocket
from .flow import Address, Flow, format_address
from .framing import FramingError, KeepAlive, StreamFramer
from .route import Target

__all__ = ["Listener", "SipTransport", "TransportLimits", "TransportUser", "parse_listen"]

log = logging.getLogger("offhook.sip")

MIN_DATAGRAM = 16
"Shorter datagrams are NAT keep-alives (CRLF, NUL), not messages."
CRLF_PONG = b"\r\n"
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  (compared with, not bound)


@dataclass(frozen=True)
class TransportLimits:
    """Bounds on what peers can hold here."""

    max_connections: int = 2000
    max_connections_per_source: int = 200
    "A proxy in front of us needs few, however many calls it brings."
    max_stranger_connections: int = 200
    "Of all peers together that the endpoint's user does not know yet."
    max_connections_per_stranger: int = 10
    handshake_timeout: float = 5.0
    connect_timeout: float = 3.0
    first_message_timeout: float = 30.0
    "A connection that has sent no complete message by then is closed; so is one that leaves a message half sent."
    idle_timeout: float = 900.0
    "A connection with nothing received for so long is closed unless a dialog holds it."
    unacknowledged_timeout: float = 5.0
    """
    A peer whose kernel has acknowledged nothing for so long is gone, though it never said so. RFC 5626 section 4.4.1
    waits 10 s for the pong to a ping; a request has 8 s in all, and 3 of them must be left to go another way.
    """
    max_unsent: int = 1_000_000
    "Bytes queued for a peer that does not read; above it the connection is closed."


class TransportUser(Protocol):
    """Who gets what the sockets say. Calls are synchronous, on the loop."""

    def admit(self, flow: Flow) -> bool: ...
    def is_stranger(self, flow: Flow) -> bool: ...
    def connection_refused(self, flow: Flow) -> None:
        """Note a peer that was admitted and has too many connections."""

    def message_received(self, data: bytes, flow: Flow) -> None: ...
    def connection_opened(self, flow: Flow) -> None: ...
    def connection_lost(self, flow: Flow) -> None: ...
    def holds(self, flow: Flow) -> bool: ...


@dataclass(frozen=True, slots=True)
class Listener:
    """One address to listen on, and what was bound."""

    transport: str
    host: str
    port: int


def parse_listen(text: str) -> Listener:
    """Parse `udp:127.0.0.1:5060` or `tls:[::1]:5061`. Raises `ValueError` that says what is wrong."""
    transport, _, address = text.partition(":")
    host, _, port = address.rpartition(":")
    if transport not in ("udp", "tcp", "tls"):
        raise ValueError(f"listen address {text!r}: must begin with udp:, tcp: or tls:")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"listen address {text!r}: must be {transport}:HOST:PORT, IPv6 hosts in brackets")
    return Listener(transport, host.strip("[]"), int(port))


class SipTransport:
    """All sockets. Call `listen`, then `send` and `connect`; `close` ends everything without a word."""

    def __init__(
        self,
        user: TransportUser,
        *,
        limits: TransportLimits,
        tls: ssl.SSLContext | None,
        tls_client: ssl.SSLContext | None,
    ) -> None:
        self._user = user
        self.limits = limits
        self._tls = tls
        self._tls_client = tls_client
        self._udp: dict[Address, DatagramSocket] = {}
        self._servers: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: dict[int, Connection] = {}
        self._dialling: dict[tuple[str, str, int, str], asyncio.Task[Flow]] = {}
        "Connections that are being opened: whoever wants the same one waits for it."
        self._accepted: dict[Connection, bool] = {}
        "Connections that peers opened, handshakes included, and whether a stranger did."
        self._from: Counter[str] = Counter()
        "How many of these each host has."
        self._numbers = itertools.count(1)
        self._local_hosts: dict[str, str] = {}
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    async def listen(self, wanted: Iterable[Listener]) -> list[Listener]:
        """Bind, and return what was bound. Raises `OSError`, and `ValueError` for TLS without a certificate."""
        self._loop = asyncio.get_running_loop()
        # Reading the system's roots takes tens of milliseconds: now, not in the middle of calls.
        self._tls_client = self._tls_client or ssl.create_default_context()
        bound = []
        for listener in wanted:
            if listener.transport == "udp":
                bound.append(self._listen_udp(listener))
            else:
                bound.append(self._listen_stream(listener))
        self._reap()
        return bound

    def send(self, flow: Flow, data: bytes) -> None:
        """Send, or drop where there is no longer a way: SIP's own timers notice."""
        if flow.connection is None:
            bound = self._udp.get(flow.local) or self._udp_for(flow)
            if bound is not None:
                bound.send(data, flow.remote)
        elif connection := self._connections.get(flow.connection):
            connection.send(data)

    def udp_flow(self, target: Target) -> Flow:
        """Return the flow to a UDP target. Raises `OSError` when no socket of its family is bound."""
        is_ipv6 = ":" in target.host
        for address in self._udp:
            if (":" in address[0]) == is_ipv6:
                return Flow("udp", self._local_address(address, target.host), (target.host, target.port))
        raise OSError(errno.EAFNOSUPPORT, f"no UDP listener for {'IPv6' if is_ipv6 else 'IPv4'}")

    async def connect(self, target: Target, *, tls_hostname: str) -> Flow:
        """Return an open connection to a TCP or TLS target, a new one or one of ours. Raises `OSError`."""
        wanted = (target.transport, target.host, target.port, tls_hostname)
        for connection in self._connections.values():
            if connection.dialled == wanted and not connection.is_closing:
                return connection.flow
        if self._closed:
            raise OSError(errno.ESHUTDOWN, "the endpoint is closed")
        dialling = self._dialling.get(wanted)
        if dialling is None:
            # An edge that restarts leaves all its calls without a connection at once: one is enough for them.
            dialling = self._dialling[wanted] = self._loop.create_task(self._dial(target, tls_hostname))
            dialling.add_done_callback(lambda done: self._dialled(wanted, done))
        return await asyncio.shield(dialling)

    def _dialled(self, wanted: tuple[str, str, int, str], done: asyncio.Task[Flow]) -> None:
        del self._dialling[wanted]
        # Who waited for it may have given up; then nobody else takes the exception.
        if not done.cancelled():
            done.exception()

    async def _dial(self, target: Target, tls_hostname: str) -> Flow:
        context = self._tls_client if target.transport == "tls" else None
        connection = Connection(self, target.transport)
        connection.dialled = (target.transport, target.host, target.port, tls_hostname)
        try:
            async with asyncio.timeout(self.limits.connect_timeout):
                await self._loop.create_connection(
                    lambda: connection,
                    target.host,
                    target.port,
                    ssl=context,
                    server_hostname=tls_hostname if context else None,
                )
        except TimeoutError:
            raise OSError(
                errno.ETIMEDOUT, f"connect timed out after {self.limits.connect_timeout:g} s"
            ) from None
        return connection.flow

    def close(self) -> None:
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        for task in (*self._tasks, *self._dialling.values()):
            task.cancel()
        for server in self._servers:
            server.close()
        for udp in self._udp.values():
            udp.close()
        for connection in list(self._connections.values()):
            connection.abort()

    # UDP.

    def _listen_udp(self, listener: Listener) -> Listener:
        bound = DatagramSocket(listener.host, listener.port, self._datagram_received)
        if bound.buffer < datagrams.RECEIVE_BUFFER and not self._udp:  # said of the first, true of all
            log.info(
                "the kernel gives %d kB for datagrams that wait to be read: of a longer burst some are lost and sent "
                "again; sysctl -w net.core.rmem_max=%d gives all that is asked for",
                bound.buffer // 1024,
                datagrams.RECEIVE_BUFFER,
                extra={"event": "sip.udp.buffer", "given": bound.buffer, "wanted": datagrams.RECEIVE_BUFFER},
            )
        self._udp[bound.address] = bound
        return Listener("udp", *bound.address)

    def read_datagrams(self) -> None:
        """Take what waits in UDP's sockets, without waiting for the loop's next turn."""
        for bound in self._udp.values():
            bound.read()

    def _datagram_received(self, data: bytes, bound: Address, remote: Address) -> None:
        if len(data) < MIN_DATAGRAM:
            return
        flow = Flow("udp", bound, remote)
        if self._user.admit(flow):
            local = self._local_address(bound, remote[0])
            self._user.message_received(data, Flow("udp", local, remote))

    def _udp_for(self, flow: Flow) -> DatagramSocket | None:
        """A flow's local host is a real address; the socket may be bound to all of them."""
        wildcard = "::" if ":" in flow.local[0] else "0.0.0.0"  # noqa: S104  (compared with, not bound)
        return self._udp.get((wildcard, flow.local[1]))

    def _local_address(self, bound: Address, remote_host: str) -> Address:
        if bound[0] not in WILDCARDS:
            return bound
        host = self._local_hosts.get(remote_host)
        if host is None:
            if len(self._local_hosts) > 10_000:
                self._local_hosts.clear()
            host = self._local_hosts[remote_host] = _route_source(remote_host) or bound[0]
        return host, bound[1]

    # TCP and TLS.

    def _listen_stream(self, listener: Listener) -> Listener:
        if listener.transport == "tls" and self._tls is None:
            raise ValueError("a tls: listen address needs a certificate")
        family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
        server = socket.create_server((listener.host, listener.port), family=family, backlog=128)
        server.setblocking(False)
        self._servers.append(server)
        host, port = server.getsockname()[:2]
        self._spawn(self._accept(server, listener.transport))
        return Listener(listener.transport, host, port)

    async def _accept(self, server: socket.socket, transport: str) -> None:
        while True:
            try:
                accepted, remote = await self._loop.sock_accept(server)
            except OSError as exc:
                if self._closed:
                    return
                # Out of file descriptors, most likely: let some close.
                log.warning("cannot accept: %s", exc, extra={"event": "sip.accept.failed"})
                await asyncio.sleep(0.5)
                continue
            try:
                self._judge(accepted, Flow(transport, accepted.getsockname()[:2], remote[:2]))
            except Exception:
                # One peer's trouble must not keep all others out.
                accepted.close()
                log.exception("connection failed", extra={"event": "sip.accept.failed", "source": remote[0]})

    def _judge(self, accepted: socket.socket, flow: Flow) -> None:
        """Let a connection in or not. Before TLS: a stranger must not cost a handshake."""
        if not self._user.admit(flow):
            accepted.close()
        elif not self._has_room(flow):
            accepted.close()
            self._user.connection_refused(flow)
        else:
            connection = Connection(self, flow.transport)
            self._accepted[connection] = self._user.is_stranger(flow)
            self._from[flow.remote[0]] += 1
            connection.accepted_from = flow.remote[0]
            self._spawn(self._welcome(accepted, connection, flow))

    def _has_room(self, flow: Flow) -> bool:
        limits, here = self.limits, self._from[flow.remote[0]]
        if self._user.is_stranger(flow):
            if here >= limits.max_connections_per_stranger:
                return False
            if sum(self._accepted.values()) >= limits.max_stranger_connections:
                return False
        return here < limits.max_connections_per_source and len(self._accepted) < limits.max_connections

    def _forget_accepted(self, connection: Connection) -> None:
        if self._accepted.pop(connection, None) is not None:
            self._from[connection.accepted_from] -= 1
            if not self._from[connection.accepted_from]:
                del self._from[connection.accepted_from]

    async def _welcome(self, accepted: socket.socket, connection: Connection, flow: Flow) -> None:
        transport, remote = flow.transport, flow.remote
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls if transport == "tls" else None,
                ssl_handshake_timeout=self.limits.handshake_timeout if transport == "tls" else None,
            )
        except (OSError, ssl.SSLError) as exc:
            accepted.close()
            self._forget_accepted(connection)
            # Some of OpenSSL's errors have no text of their own.
            reason = getattr(exc, "reason", None) or exc.strerror or str(exc) or type(exc).__name__
            log.info(
                "connection failed: %s",
                reason,
                extra={"event": "sip.handshake.failed", "source": format_address(remote)},
            )
        except BaseException:
            self._forget_accepted(connection)
            raise

    def opened(self, connection: Connection) -> int:
        number = next(self._numbers)
        self._connections[number] = connection
        return number

    def lost(self, connection: Connection) -> None:
        self._forget_accepted(connection)
        if self._connections.pop(connection.flow.connection or 0, None) is not None:
            self._user.connection_lost(connection.flow)

    @property
    def user(self) -> TransportUser:
        return self._user

    def now(self) -> float:
        return self._loop.time()

    def _reap(self) -> None:
        """Close connections that hold resources and say nothing. One timer for all."""
        now = self._loop.time()
        for connection in list(self._connections.values()):
            if connection.is_stale(now, self.limits) and not self._user.holds(connection.flow):
                connection.abort()
        self._reaper = self._loop.call_later(5.0, self._reap)

    def _spawn(self, coroutine: asyncio._CoroutineLike[None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Connection(asyncio.Protocol):
    """One TCP or TLS connection, accepted or dialled."""

    def __init__(self, owner: SipTransport, transport: str) -> None:
        self._owner = owner
        self._kind = transport
        self._framer = StreamFramer()
        self._heard = False
        self.flow = Flow(transport, ("", 0), ("", 0), 0)
        self.dialled: tuple[str, str, int, str] | None = None
        self.accepted_from = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's, so nothing can be asserted here.
        self._transport = cast(asyncio.WriteTransport, transport)
        _bound_silence(transport, self._owner.limits.unacknowledged_timeout)
        local = transport.get_extra_info("sockname") or ("", 0)
        remote = transport.get_extra_info("peername") or ("", 0)
        self.flow = Flow(self._kind, local[:2], remote[:2], self._owner.opened(self))
        self._received_at = self._complete_at = self._owner.now()
        self._owner.user.connection_opened(self.flow)

    def data_received(self, data: bytes) -> None:
        self._received_at = self._owner.now()
        fault = None
        try:
            frames = self._framer.receive_data(data)
        except FramingError as exc:
            fault, frames = exc, exc.frames
        # One pong for all pings that came at once: a flood of them must not cost a system call each.
        if any(isinstance(frame, KeepAlive) for frame in frames):
            self.send(CRLF_PONG)
        for frame in frames:
            self._heard = True
            if not isinstance(frame, KeepAlive):
                self._owner.user.message_received(frame.data, self.flow)
        if not self._framer.buffered:
            self._complete_at = self._received_at
        if fault is not None:
            if fault.answer is not None:
                self._transport.write(fault.answer)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)

    @property
    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def send(self, data: bytes) -> None:
        if self._transport.get_write_buffer_size() > self._owner.limits.max_unsent:
            self.abort()
        elif not self.is_closing:
            self._transport.write(data)

    def abort(self) -> None:
        self._transport.abort()

    def is_stale(self, now: float, limits: TransportLimits) -> bool:
        if not self._heard or self._framer.buffered:
            return now - self._complete_at > limits.first_message_timeout
        return now - self._received_at > limits.idle_timeout


def _bound_silence(transport: asyncio.BaseTransport, seconds: float) -> None:
    """Have the kernel close a half-open connection: by itself it sends again for a quarter of an hour."""
    connected = transport.get_extra_info("socket")
    if connected is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def _route_source(remote_host: str) -> str | None:
    """Return the local address that packets to `remote_host` leave from. Sends nothing."""
    family = socket.AF_INET6 if ":" in remote_host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((remote_host, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None
