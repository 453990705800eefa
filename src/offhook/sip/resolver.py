"""Hops to addresses (RFC 3263): NAPTR, SRV, A and AAAA. Literal addresses go straight through."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Awaitable, Callable
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.resolver

from offhook.lookup import Lookups

from .responses import DEFAULT_PORTS
from .route import MAX_TARGETS, Hop, Target

__all__ = ["Resolver", "UnresolvableError"]

QUERY_LIFETIME = 2.0
"Seconds for one DNS question, so that a dead server leaves time for the next hop."

_SRV_PREFIX = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}
_NAPTR_SERVICE = {"SIP+D2U": "udp", "SIP+D2T": "tcp", "SIPS+D2T": "tls"}

Query = Callable[[str, str], Awaitable[list[Any]]]
"`(name, record type)` to dnspython rdata; empty when there are none."


class UnresolvableError(OSError):
    """A name without addresses."""


class Resolver:
    def __init__(self, query: Query | None = None) -> None:
        self._query = query or _query_dns
        self._lookups = Lookups()

    async def resolve(self, hop: Hop) -> list[Target]:
        """Return at most three targets, best first. Raises `UnresolvableError`."""
        if _is_literal(hop.host):
            transport = hop.transport or "udp"
            return [Target(transport, hop.host, hop.port or DEFAULT_PORTS[transport], hop.host)]
        if hop.port is not None:
            transport = hop.transport or "udp"
            return await self._addresses(transport, hop.host, hop.port, hop.host)
        transports = [hop.transport] if hop.transport else await self._transports(hop)
        targets: list[Target] = []
        for transport in transports:
            if len(targets) < MAX_TARGETS:
                targets += await self._services(transport, hop.host)
        if targets:
            return targets[:MAX_TARGETS]
        # RFC 3263 section 4.2: no SRV, so the name's addresses with the default port.
        transport = hop.transport or ("tls" if hop.secure else "udp")
        return await self._addresses(transport, hop.host, DEFAULT_PORTS[transport], hop.host)

    async def _transports(self, hop: Hop) -> list[str]:
        """RFC 3263 section 4.1: what NAPTR prefers; without NAPTR, every transport's SRV is asked for."""
        records = sorted(await self._query(hop.host, "NAPTR"), key=lambda r: (r.order, r.preference))
        services = [_NAPTR_SERVICE.get(_text(record.service).upper()) for record in records]
        named = [transport for transport in services if transport is not None]
        transports = named or ["udp", "tcp", "tls"]
        return [t for t in transports if t == "tls"] or ["tls"] if hop.secure else transports

    async def _services(self, transport: str, name: str) -> list[Target]:
        if "." not in name:
            return []
        records = _in_srv_order(await self._query(f"{_SRV_PREFIX[transport]}.{name}", "SRV"))
        targets: list[Target] = []
        for record in records[:MAX_TARGETS]:
            host = str(record.target).rstrip(".")
            if not host:
                continue  # RFC 2782: "." says that the service is not to be had here
            try:
                targets += await self._addresses(transport, host, int(record.port), name)
            except UnresolvableError:
                continue
        return targets[:MAX_TARGETS]

    async def _addresses(self, transport: str, host: str, port: int, name: str) -> list[Target]:
        found: list[str] = []
        # Names without a dot are the business of the hosts file and of search lists.
        if "." in host:
            for records in await asyncio.gather(self._query(host, "A"), self._query(host, "AAAA")):
                found += [str(record.address) for record in records]
        if not found:
            found = await self._look_up(host)
        if not found:
            raise UnresolvableError(f"{host} has no address")
        return [Target(transport, address, port, name) for address in found[:MAX_TARGETS]]

    async def _look_up(self, host: str) -> list[str]:
        """Ask the system, which also reads the hosts file."""
        try:
            return await self._lookups.find(host)
        except (OSError, UnicodeError):
            return []


async def _query_dns(name: str, record_type: str) -> list[Any]:
    try:
        answer = await dns.asyncresolver.resolve(name, record_type, lifetime=QUERY_LIFETIME)
    except (dns.exception.DNSException, OSError, ValueError):
        # No such name, no answer, no server, no resolv.conf: each means nothing found here.
        return []
    return list(answer)


def _in_srv_order(records: list[Any]) -> list[Any]:
    """RFC 2782: by priority, and at random by weight within one."""
    return sorted(records, key=lambda r: (r.priority, -(random.random() ** (1 / max(r.weight, 0.01)))))  # noqa: S311


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _text(value: bytes | str) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
