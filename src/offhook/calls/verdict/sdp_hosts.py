"""What the addresses in SIP messages give away about NAT."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

__all__ = ["is_out_of_reach", "media_host", "peer_host"]

_MEDIA: Final = re.compile(r"^m=([a-z]{1,20}) ", re.M)
_CONNECTION: Final = re.compile(r"^c=IN IP[46] ([0-9A-Fa-f.:]{2,45})", re.M)
_NEAR: Final = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
)


def media_host(message: str) -> str:
    """Return the address that a message's SDP names for its sound; empty when it has none."""
    body = message.replace("\r", "").partition("\n\n")[2]
    sections = [match.start() for match in _MEDIA.finditer(body)] or [len(body)]
    audio = next((match.start() for match in _MEDIA.finditer(body) if match[1] == "audio"), None)
    if audio is not None:
        after = next((start for start in sections if start > audio), len(body))
        if found := _CONNECTION.search(body, audio, after):
            return found[1]
    found = _CONNECTION.search(body, 0, sections[0])
    return found[1] if found else ""


def peer_host(address: str) -> str:
    """Return the host of `host:port`, without the brackets of IPv6."""
    return address.rpartition(":")[0].strip("[]")


def is_out_of_reach(host: str, peer: str) -> bool:
    """Whether an address means nothing where `peer` is: one of a private network, or of one machine."""
    named, there = _nearness(host), _nearness(peer)
    return named is not None and there is not None and named < there


def _nearness(host: str) -> int | None:
    """0: this machine's. 1: a private network's. 2: everybody's. `None`: no address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address.is_loopback:
            return 0
        else:
            # fc00::/7; of IPv6 nothing else is translated.
            return 1 if address.is_link_local or address.packed[0] & 0xFE == 0xFC else 2
    if address.is_loopback:
        return 0
    return 1 if address.is_link_local or any(address in network for network in _NEAR) else 2
