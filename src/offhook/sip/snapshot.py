"""
A call's dialog as data, from which another process can end it: a crash hangs up (decision 12 of the design). Pure.

It has what the INVITE said that counts in its dialog, byte for byte, and what came of it since; no SDP, no credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .exchange import ServerExchange
from .flow import Address, Flow
from .headers import Headers, full_name, header_key
from .message import Request
from .revived import RevivedUsage
from .transaction.keys import server_key
from .uas import UasUsage

if TYPE_CHECKING:
    from .stack import Stack

__all__ = ["Snapshot", "SnapshotError", "revive", "take_snapshot"]

Snapshot = dict[str, Any]
"JSON."

VERSION = 1
CSEQ_GAP = 1_000
"""
How far the CSeq of a revived dialog is above the last that was kept: what was sent since then is not known, and numbers
must rise but may be left out (RFC 3261 section 12.2.2).
"""
GONE = -1
"The number of a connection that another process had."

_OF_DIALOG = frozenset(("from", "to", "call-id", "cseq", "contact", "record-route"))
_WHILE_EARLY = _OF_DIALOG | {"via"}


class SnapshotError(ValueError):
    """It is no snapshot that this version can read."""


def take_snapshot(usage: UasUsage) -> Snapshot:
    """Return what `revive` needs; of a call that is not answered also what it takes to refuse its INVITE."""
    flow, dialog, moved = usage.flow, usage.dialog, usage.moved_to
    assert flow is not None
    is_early = usage.state in ("calling", "early")
    kept = _WHILE_EARLY if is_early else _OF_DIALOG
    return {
        "version": VERSION,
        "early": is_early,
        "transport": flow.transport,
        "local": list(flow.local),
        "remote": list(flow.remote),
        "moved_to": None if moved is None else list(moved),
        "tls_hostname": usage.tls_hostname,
        "uri": usage.invite.uri,
        "headers": [
            [full_name(name), value] for name, value in usage.invite.headers if header_key(name) in kept
        ],
        "local_tag": dialog.local_tag,
        "remote_target": dialog.remote_target,
        "local_seq": dialog.local_seq,
        "remote_seq": dialog.remote_seq,
    }


def revive(stack: Stack, snapshot: Mapping[str, Any], *, now: float) -> RevivedUsage:
    """
    Return the call of a snapshot, to be refused or hung up: what came by a connection has lost it.

    Raises `SnapshotError`.
    """
    try:
        if snapshot["version"] != VERSION:
            raise SnapshotError(f"a snapshot of version {snapshot['version']}")
        return _revive(stack, snapshot, now)
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotError(f"a snapshot that cannot be read: {error!r}") from error


def _revive(stack: Stack, snapshot: Mapping[str, Any], now: float) -> RevivedUsage:
    stack.now = now
    headers = Headers((name, value) for name, value in snapshot["headers"])
    request = Request("INVITE", snapshot["uri"], headers=headers, body=b"")
    transport = snapshot["transport"]
    local = stack.standing_address(transport, _address(snapshot["local"]))
    connection = None if transport == "udp" else GONE
    flow = Flow(transport, local, _address(snapshot["remote"]), connection)
    # Without a Via there is none, and nothing to refuse either.
    exchange = ServerExchange(
        stack, request, flow, server_key(request, "INVITE") if snapshot["early"] else ()
    )
    exchange.to_tag = snapshot["local_tag"]
    usage = RevivedUsage(stack, exchange)
    exchange.usage = usage
    usage.dialog = replace(
        usage.dialog,
        remote_target=snapshot["remote_target"],
        local_seq=snapshot["local_seq"] + CSEQ_GAP,
        remote_seq=snapshot["remote_seq"],
    )
    usage.tls_hostname = snapshot["tls_hostname"]
    moved = snapshot["moved_to"]
    usage.resume(answered=not snapshot["early"], moved_to=None if moved is None else _address(moved), now=now)
    stack.adopt(exchange, usage)
    return usage


def _address(pair: list[Any]) -> Address:
    host, port = pair
    return str(host), int(port)
