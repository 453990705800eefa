"""Finds flows: resolves the hops that the stack names, and connects to their targets in order (RFC 3263)."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable
from typing import Protocol

from .flow import Flow, format_address
from .registrations import REGISTRAR
from .resolver import Resolver
from .route import MAX_TARGETS, Attempt, Hop, Target, Way, refusal
from .ways import Reach

__all__ = ["Connector", "Wayfinder"]

log = logging.getLogger("offhook.sip")


class Connector(Protocol):
    """The sockets. Both raise `OSError`."""

    def udp_flow(self, target: Target) -> Flow: ...
    async def connect(self, target: Target, *, tls_hostname: str) -> Flow: ...


class Wayfinder:
    """Answers `Reach`es; holds nothing between them."""

    def __init__(
        self,
        connector: Connector,
        resolver: Resolver,
        on_registrar: Callable[[str, tuple[str, ...]], None] = lambda host, addresses: None,
    ) -> None:
        """`on_registrar` is told what a registrar's name was resolved to, before anything is sent there."""
        self._connector = connector
        self._resolver = resolver
        self._on_registrar = on_registrar

    async def find(self, reach: Reach) -> Way:
        """Return the way, or what was tried in vain: `MAX_TARGETS` at most, with those of `reach.tried`."""
        search = _Search(reach)
        try:
            async with asyncio.timeout(reach.timeout):
                return await self._try_hops(search)
        except TimeoutError:
            return search.failed(f"no way found within {reach.timeout:.2g} s")
        except Exception as exc:
            log.exception("reaching failed", extra={"event": "sip.reach.failed"})
            return search.failed(f"internal fault: {type(exc).__name__}")

    async def _try_hops(self, search: _Search) -> Way:
        hops = search.reach.hops
        for left, hop in zip(range(len(hops) - 1, -1, -1), hops, strict=True):
            search.current = (hop, None)
            try:
                found = await self._resolver.resolve(hop)
            except OSError as exc:
                search.note(exc)
                continue
            if hop.rule == REGISTRAR:
                self._on_registrar(hop.host, tuple(target.host for target in found))
            targets = [target for target in found if target not in search.tried]
            for at, target in enumerate(targets):
                if len(search.tried) >= MAX_TARGETS:
                    return search.nothing()
                search.current = (hop, target)
                search.tried.add(target)
                try:
                    flow = await self._open(hop, target, search.reach)
                except OSError as exc:
                    search.note(exc)
                    continue
                others = (at + 1 < len(targets) or left > 0) and len(search.tried) < MAX_TARGETS
                return Way(flow, tuple(search.attempts), hop.rule, frozenset(search.tried), others)
        return search.nothing()

    async def _open(self, hop: Hop, target: Target, reach: Reach) -> Flow:
        if not hop.trusted and (why := refusal(target.transport, target.host, target.port, peer=reach.peer)):
            raise PermissionError(f"not allowed: {why}")
        if target.transport == "udp":
            return self._connector.udp_flow(target)
        named_by_address = target.name == target.host
        hostname = reach.tls_hostname if named_by_address and reach.tls_hostname else target.name
        return await self._connector.connect(target, tls_hostname=hostname)


class _Search:
    """What one `Reach` has come to."""

    def __init__(self, reach: Reach) -> None:
        self.reach = reach
        self.attempts: list[Attempt] = []
        self.tried = set(reach.tried)
        self.current: tuple[Hop, Target | None] = (reach.hops[0], None)

    def note(self, exc: OSError) -> None:
        error, errno = _explain(exc)
        self._add(error, errno)

    def failed(self, error: str) -> Way:
        self._add(error, None)
        return self.nothing()

    def nothing(self) -> Way:
        return Way(None, tuple(self.attempts), tried=frozenset(self.tried))

    def _add(self, error: str, errno: int | None) -> None:
        hop, target = self.current
        if target is None:
            transport, where = hop.transport or "", hop.host
        else:
            transport, where = target.transport, format_address((target.host, target.port))
        self.attempts.append(Attempt(f"{where} from {hop.rule}", transport, error, errno))


def _explain(exc: OSError) -> tuple[str, int | None]:
    """Return one line for people, and the system's number where the system said it."""
    if isinstance(exc, ssl.SSLError):
        # Its `errno` is OpenSSL's own, not the system's.
        reason = getattr(exc, "verify_message", "") or exc.reason or str(exc)
        return f"TLS: {reason}", None
    text = exc.strerror or str(exc)
    # asyncio says "Connect call failed ('192.0.2.1', 5060)".
    if exc.errno and "failed" in text:
        text = os.strerror(exc.errno)
    return text or type(exc).__name__, exc.errno
