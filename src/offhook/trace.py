"""
What rooms say about themselves: the values that a call's timeline is made of.

A trace is an output of the protocol code, not a log level. Each room hands these values to a
callable that it was given; what collects them (`offhook.calls.timeline`) puts those of one call on one clock.

Those that every call makes are not frozen, here and where other rooms hand values on: making one costs a third of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Direction", "RoutingDecision", "StateChange", "WireMessage"]

Direction = Literal["in", "out"]


@dataclass(slots=True)
class WireMessage:
    """One SIP message as it stood on the wire."""

    at: float
    "Seconds on the node's monotonic clock."
    direction: Direction
    transport: str
    "`udp`, `tcp` or `tls`."
    local: str
    "`host:port`, IPv6 hosts in brackets."
    remote: str
    data: bytes


@dataclass(slots=True)
class StateChange:
    """Something moved from one state to another, and why."""

    at: float
    subject: str
    "What moved: `transaction INVITE`, `dialog`, `refer 1`, ..."
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """Where a request was sent, or could not be, and the rule that chose."""

    at: float
    method: str
    text: str
    "For people: `sent REFER by the INVITE's connection`, `tcp 192.0.2.1:5060 from Record-Route: connect timed out`."
    details: Mapping[str, object] = field(default_factory=dict)
