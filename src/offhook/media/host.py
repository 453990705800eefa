"""
The host that an offer's `c=` line names: whether sound may be sent there.

What could turn us against others is refused: groups, reserved addresses, and our own loopback.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

__all__ = ["HostError", "PeerHost", "judge_host"]

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_REMEMBERED: Final = 64
"""Characters; what is longer is no address."""


class HostError(ValueError):
    """Nothing is sent there; the message says why, as what follows `c=`."""


@dataclass(frozen=True, slots=True)
class PeerHost:
    host: str
    "The literal address; IPv4 that was written as IPv6 is IPv4 again."
    is_own: bool
    "It is the one that we have ourselves."


def judge_host(host: str, own: str, *, allow_loopback: bool) -> PeerHost:
    """Return where to send, for a host as written; `own` is our literal address. Raises `HostError`."""
    return (_judge_again if len(host) <= _REMEMBERED else _judge)(host, own, allow_loopback)


def _judge(host: str, own_host: str, allow_loopback: bool) -> PeerHost:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise HostError(f"names {host[:80]!r}: give a literal address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    own = ipaddress.ip_address(own_host)
    if address.version != own.version:
        raise HostError(f"has an IPv{address.version} address, media here is IPv{own.version}")
    if address.is_unspecified:
        return PeerHost(str(address), False)
    if address.is_multicast or (address.is_reserved and not _is_unicast_all_the_same(address)):
        raise HostError(f"has {address}: only unicast addresses are sent to")
    if address.is_loopback and not (own.is_loopback or allow_loopback):
        raise HostError(f"has {address}: loopback is not sent to from {own}")
    return PeerHost(str(address), address == own)


_judge_again = lru_cache(maxsize=1024)(_judge)
"A trunk has few addresses that its sound comes from."


def _is_unicast_all_the_same(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """`ipaddress` counts all of ::/8 as reserved, loopback and the prefix of NAT64 (RFC 6052) among it."""
    return address.is_loopback or address in _NAT64
