"""
The one HTTP client for addresses that others chose: webhook URLs, tool servers.

A name is resolved once, its addresses are judged, and the connection goes to the very address that was
judged: a name cannot show one address to the check and another to the socket. Redirects are never followed,
proxies from the environment are not used, no cookies are kept, and of an answer only a bounded part is read.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Literal, NamedTuple

import httpcore2
import httpx2

from offhook.lookup import Lookups

__all__ = [
    "OPERATOR",
    "STRANGER",
    "OutboundClient",
    "OutboundError",
    "OutboundPolicy",
    "OutboundResponse",
    "check_url",
    "judge_address",
    "resolve",
]

MAX_TARGETS = 3
"How many of a name's addresses are tried."
CONNECT_TIMEOUT = 3.0
"For each address, so that one dead address leaves time for the next."
MAX_IDLE_PER_ORIGIN = 64
KEEPALIVE = 30.0

_GLOBAL = IPv6Network("2000::/3")
"All that IANA has given to hosts so far; what Python calls global has old site-local and translated ones, too."
_NAT64 = IPv6Network("64:ff9b::/96")
_DOCUMENTATION = IPv6Network("3fff::/20")
_ENDS_IN_IPV4 = (
    _NAT64,
    IPv6Network("64:ff9b:1::/48"),  # RFC 8215
    IPv6Network("::ffff:0:0:0/96"),  # RFC 2765
    IPv6Network("::/96"),  # RFC 4291 section 2.5.5.1
)


@dataclass(frozen=True, slots=True)
class OutboundPolicy:
    """What a URL may point at. It goes by who chose the URL."""

    private: bool = False
    "Addresses that are not global: private, shared, unique local."
    link_local: bool = False
    "Where clouds hand a machine its own keys (169.254.169.254): no part of a private network that strangers may reach."
    loopback: bool = False
    plaintext: bool = False
    "`http:` to any address. To a loopback address `http:` is allowed whenever `loopback` is."


OPERATOR = OutboundPolicy(private=True, link_local=True, loopback=True, plaintext=True)
"For URLs from the configuration file: the operator knows the own network."
STRANGER = OutboundPolicy()
"For URLs that came by API: global addresses, https."

ErrorKind = Literal["url", "refused", "dns", "connect", "tls", "timeout", "protocol"]


class OutboundError(Exception):
    """
    A request that got no answer.

    `kind` says where it stopped. After `url` and `refused` the same request cannot succeed later
    without a change of the URL or of the policy.
    """

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def permanent(self) -> bool:
        return self.kind in ("url", "refused")


@dataclass(frozen=True, slots=True)
class OutboundResponse:
    status: int
    headers: Mapping[str, str]
    "Names in lower case; of a repeated header the last value."
    body: bytes
    "At most `max_body` bytes."
    truncated: bool
    "The body was longer, or broke off."


class _Key(NamedTuple):
    """What a kept connection may be used for. The policy is part of it: it judged the address."""

    scheme: bytes
    host: bytes
    port: int
    policy: OutboundPolicy


@dataclass(slots=True)
class _Progress:
    connected: bool = False


_backend = httpcore2.AnyIOBackend()


class OutboundClient:
    """
    Sends requests, and keeps connections to each origin for the next one.

    `tls` is the context that verifies servers; without one, the system's trust store is used.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls or ssl.create_default_context()
        self._idle: dict[_Key, list[httpcore2.AsyncHTTP11Connection]] = {}
        self._active: set[httpcore2.AsyncHTTP11Connection] = set()
        self._lookups = Lookups()
        self._closed = False

    async def post(
        self,
        url: str,
        *,
        content: bytes,
        headers: Iterable[tuple[str, str]],
        policy: OutboundPolicy,
        timeout: float = 10.0,
        max_body: int = 4096,
        once: bool = False,
    ) -> OutboundResponse:
        """
        Send a POST and return the answer, whatever its status. `timeout` is for all of it, in seconds.

        Raises `OutboundError`. A request that meets a kept connection just as its server closes it is sent
        once more, on a new one. With `once` it gets a connection of its own: for what must not be done twice.
        """
        target = _parse_url(url, policy)
        request = httpcore2.Request(
            "POST",
            target,
            headers=[
                ("host", _host_header(target)),
                ("content-length", str(len(content))),
                *([("connection", "close")] if once else ()),
                *headers,
            ],
            content=content,
        )
        key = _Key(target.scheme, target.host, target.origin.port, policy)
        deadline = asyncio.get_running_loop().time() + timeout
        progress = _Progress()
        try:
            async with asyncio.timeout_at(deadline):
                connection, response = await self._send(key, request, once, progress)
        except TimeoutError:
            if progress.connected:
                raise OutboundError("timeout", f"no answer within {timeout:g} s") from None
            raise OutboundError("connect", f"no connection within {timeout:g} s") from None
        try:
            body, truncated = await _read_body(response, max_body, deadline)
        finally:
            await self._give_back(key, connection)
        fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return OutboundResponse(response.status, fields, body, truncated)

    async def reach(self, url: str, *, policy: OutboundPolicy, timeout: float = 10.0) -> None:
        """Open a connection as `post` would, with TLS where the URL says so, and close it. Raises `OutboundError`."""
        target = _parse_url(url, policy)
        try:
            async with asyncio.timeout(timeout):
                key = _Key(target.scheme, target.host, target.origin.port, policy)
                connection = await self._connect(key, _Progress())
        except TimeoutError:
            raise OutboundError("timeout", f"no connection within {timeout:g} s") from None
        await connection.aclose()

    async def close(self) -> None:
        """Close every connection. Requests under way fail."""
        self._closed = True
        connections = [*self._active, *(c for stack in self._idle.values() for c in stack)]
        self._idle.clear()
        for connection in connections:
            await connection.aclose()

    async def _send(
        self, key: _Key, request: httpcore2.Request, once: bool, progress: _Progress
    ) -> tuple[httpcore2.AsyncHTTP11Connection, httpcore2.Response]:
        connection = None if once else await self._take_idle(key)
        if connection is not None:
            progress.connected = True
            try:
                return connection, await self._request(connection, request)
            except OutboundError:
                progress.connected = False
        connection = await self._connect(key, progress)
        return connection, await self._request(connection, request)

    async def _request(
        self, connection: httpcore2.AsyncHTTP11Connection, request: httpcore2.Request
    ) -> httpcore2.Response:
        self._active.add(connection)
        try:
            return await connection.handle_async_request(request)
        except httpcore2.ProtocolError as error:
            self._active.discard(connection)
            raise OutboundError("protocol", str(error)) from error
        except httpcore2.NetworkError as error:
            self._active.discard(connection)
            raise OutboundError("protocol", "the connection broke off before an answer") from error
        except BaseException:
            self._active.discard(connection)
            raise

    async def _take_idle(self, key: _Key) -> httpcore2.AsyncHTTP11Connection | None:
        stack = self._idle.get(key, [])
        while stack:
            # The one used last is the one least likely to have been closed at the other end.
            connection = stack.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return None

    async def _give_back(self, key: _Key, connection: httpcore2.AsyncHTTP11Connection) -> None:
        self._active.discard(connection)
        stack = self._idle.get(key, [])
        if not connection.is_idle() or len(stack) >= MAX_IDLE_PER_ORIGIN or self._closed:
            await connection.aclose()
            return
        if not stack:
            self._forget_dead_origins()
            self._idle[key] = stack
        stack.append(connection)

    def _forget_dead_origins(self) -> None:
        for key in [key for key, stack in self._idle.items() if not stack]:
            del self._idle[key]

    async def _connect(self, key: _Key, progress: _Progress) -> httpcore2.AsyncHTTP11Connection:
        if self._closed:
            raise OutboundError("connect", "the client is closed")
        host = key.host.decode("ascii")
        addresses = await resolve(host, key.policy, self._lookups)
        stream = await _connect_first(host, addresses, key.port)
        progress.connected = True
        if key.scheme == b"https":
            try:
                stream = await stream.start_tls(self._tls, server_hostname=host)
            except httpcore2.ConnectError as error:
                raise OutboundError("tls", f"TLS with {host} failed: {_cause(error)}") from error
            except BaseException:
                # The time is up, and `start_tls` closes the connection only after errors of its own.
                await stream.aclose()
                raise
        return httpcore2.AsyncHTTP11Connection(
            origin=httpcore2.Origin(key.scheme, key.host, key.port), stream=stream, keepalive_expiry=KEEPALIVE
        )


async def resolve(host: str, policy: OutboundPolicy, lookups: Lookups) -> list[str]:
    """
    Return up to three addresses of a name that the policy allows. Connect to these, not to the name.

    Raises `OutboundError`: `dns` when there is none, `refused` when the policy forbids any of them. One
    forbidden address is enough, since nobody needs a name that points both ways.
    """
    try:
        addresses = [literal] if (literal := _literal(host)) is not None else await lookups.find(host)
    except OSError as error:
        raise OutboundError("dns", f"cannot resolve {host}: {error.strerror or error}") from error
    except UnicodeError as error:
        raise OutboundError("url", f"{host[:80]} is not the name of a host: {error}") from error
    if not addresses:
        raise OutboundError("dns", f"{host} has no address")
    for address in addresses:
        if (fault := judge_address(address, policy)) is not None:
            raise OutboundError("refused", f"{host} is at {address}, {fault}")
    return addresses[:MAX_TARGETS]


def check_url(url: str, policy: OutboundPolicy) -> None:
    """
    Judge a URL before anything is sent there, by what can be read off it; a name's addresses are judged when used.

    Raises `OutboundError`, `url` or `refused`.
    """
    target = _parse_url(url, policy)
    if httpx2.URL(url).userinfo:
        raise OutboundError("url", "a user or password in it would not be sent")
    host = target.host.decode("ascii")
    if (address := _literal(host)) is None:
        _check_name(host)
        if host.removesuffix(".").rpartition(".")[2] == "localhost":  # RFC 6761 section 6.3
            address = "127.0.0.1"
    if address is not None and (fault := judge_address(address, policy)) is not None:
        raise OutboundError("refused", f"{host} is an address {fault}")


def _literal(host: str) -> str | None:
    """Return the address that a host is, in whichever way it is written; `None` for a name."""
    try:
        return str(ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))  # 2130706433, 0x7f.1
    except OSError:
        return None


def _check_name(host: str) -> None:
    """Raises `OutboundError` for what no resolver could find."""
    labels = host.removesuffix(".").split(".")
    if len(host) > 254 or not all(
        1 <= len(label) <= 63 and label.replace("-", "").replace("_", "").isalnum() for label in labels
    ):
        raise OutboundError("url", f"{host[:80]!r} is not the name of a host")


def judge_address(address: str, policy: OutboundPolicy) -> str | None:
    """Return why the policy forbids an address, or `None`."""
    ip = ip_address(address)
    for inner in (ip, *_embedded(ip)):
        if inner.is_multicast or inner.is_unspecified:
            return "which is not the address of a host"
        if inner.is_loopback:
            if not policy.loopback:
                return "which is this machine; only URLs from the configuration may point there"
        elif inner.is_link_local:
            if not policy.link_local:
                return "which is link-local; only URLs from the configuration may point there"
        elif not _is_public(inner) and not policy.private:
            return "which is not a public address; only URLs from the configuration may point there"
    return None


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    if isinstance(ip, IPv6Address) and ip not in _NAT64 and (ip not in _GLOBAL or ip in _DOCUMENTATION):
        return False
    return ip.is_global


def _embedded(ip: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address leads to by itself."""
    if isinstance(ip, IPv4Address):
        return []
    found = [ip.ipv4_mapped, ip.sixtofour]
    if any(ip in network for network in _ENDS_IN_IPV4) and int(ip) > 1:  # `::` and `::1` are themselves
        found.append(IPv4Address(int(ip) & 0xFFFFFFFF))
    return [inner for inner in found if inner is not None]


async def _connect_first(host: str, addresses: list[str], port: int) -> httpcore2.AsyncNetworkStream:
    faults = []
    for address in addresses:
        try:
            return await _backend.connect_tcp(address, port, timeout=CONNECT_TIMEOUT)
        except httpcore2.ConnectTimeout:
            faults.append(f"{address} port {port}: no connection within {CONNECT_TIMEOUT:g} s")
        except httpcore2.ConnectError as error:
            faults.append(f"{address} port {port}: {_cause(error)}")
    raise OutboundError("connect", f"cannot connect to {host}: " + "; ".join(faults))


async def _read_body(response: httpcore2.Response, limit: int, deadline: float) -> tuple[bytes, bool]:
    """Return what came of the body, and whether more was to come. It may fail: the status is known."""
    body = b""
    stream = response.stream
    assert isinstance(stream, AsyncIterable)
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in stream:
                body += chunk
                if len(body) > limit:
                    return body[:limit], True
    except (httpcore2.NetworkError, httpcore2.ProtocolError, TimeoutError):
        return body, True
    finally:
        await response.aclose()
    return body, False


def _parse_url(url: str, policy: OutboundPolicy) -> httpcore2.URL:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise OutboundError("url", f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise OutboundError("url", f"{url!r} is not an http or https URL")
    if parsed.port is not None and not 1 <= parsed.port <= 65535:
        raise OutboundError("url", f"{url!r} names no port that can be called")
    if parsed.scheme == "http" and not (policy.plaintext or (policy.loopback and _is_loopback(parsed.host))):
        raise OutboundError("refused", f"{url!r} is not https")
    return httpcore2.URL(
        scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_header(url: httpcore2.URL) -> str:
    host = url.host.decode("ascii")
    if ":" in host:
        host = f"[{host}]"
    return host if url.port is None else f"{host}:{url.port}"


def _cause(error: BaseException) -> str:
    """Return what the operating system or OpenSSL said, which the wrapping exceptions hide."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
            continue
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen.verify_message
        if isinstance(seen, ssl.SSLError) and seen.reason:
            return seen.reason
        if isinstance(seen, OSError) and seen.errno:
            return os.strerror(seen.errno)
        seen = seen.__cause__ or seen.__context__
    return str(error) or "refused"
