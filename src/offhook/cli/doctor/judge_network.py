"""What the addresses mean that a node tells others, and what a packet filter lets in. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

from .facts import AddressFacts, FirewallFacts
from .verdict import Finding, fault, ok, warning

__all__ = ["judge_addresses", "judge_firewall"]


def judge_addresses(facts: AddressFacts) -> Iterator[Finding]:
    outside = ", ".join(facts.outside)
    if facts.outside and all(_is(host, "loopback") for _, host in facts.listen):
        yield fault(
            "addresses",
            f"sip.listen has this machine's own addresses alone, but calls of {outside} come from outside",
            "Listen on an address that they can reach, such as udp:0.0.0.0:5060.",
        )
        return
    found = [*_judge_sound(facts, outside), *_judge_contact(facts, outside), *_judge_own(facts)]
    yield from found
    if all(one.level == "ok" for one in found):
        told = facts.public_host or ", ".join(sorted({host for _, host in facts.listen}))
        yield ok("addresses", f"callers are told {told} for SIP and {facts.sdp_host} for sound")


def _judge_sound(facts: AddressFacts, outside: str) -> Iterator[Finding]:
    sdp, bind = facts.sdp_host, facts.bind
    reachable = any(not _is(host, "loopback") for _, host in facts.listen)
    if reachable and _is(sdp, "loopback"):
        yield fault(
            "addresses",
            f"calls can come from other machines, but SDP sends their sound to {sdp}: nobody would hear anything",
            "Set media.bind and media.public_ip to an address of this host.",
        )
    elif facts.outside and _is(sdp, "private"):
        yield fault(
            "addresses",
            f"SDP names {sdp}, not a public address, so {outside} cannot send sound there: callers would not be heard",
            "Set media.public_ip to the address that the internet sees of this machine, and let the router forward "
            "media.ports (UDP) to it.",
        )
    elif _is(sdp, "unspecified"):
        yield fault("addresses", f"SDP names {sdp}, which is no address", "Set media.public_ip.")
    if not _is(sdp, "loopback") and _is(bind, "loopback"):
        yield fault(
            "addresses",
            f"SDP names {sdp}, but the media ports are bound to {bind}: no packet from outside gets there",
            'Set media.bind = "0.0.0.0", or the address of the interface that callers reach.',
        )
    if facts.interfaces and sdp not in facts.interfaces and not _is(sdp, "private") and _is_literal(sdp):
        yield ok(
            "addresses",
            f"media.public_ip {sdp} is on none of this machine's interfaces: it stands behind NAT",
            "The router must forward media.ports (UDP) and the SIP ports here, each to the same number.",
        )


def _judge_contact(facts: AddressFacts, outside: str) -> Iterator[Finding]:
    if facts.outside and not facts.public_host:
        told = next(
            (host for _, host in facts.listen if _is(host, "private") or _is(host, "unspecified")), None
        )
        if told is not None and _is(told, "private"):
            yield fault(
                "addresses",
                f"Contact names {told}, not a public address, so {outside} cannot send ACK and BYE there",
                "Set sip.public_host to the name or address that they reach this machine by.",
            )
        elif told is not None:
            yield _judge_unspecified(facts, told)
    if not facts.public_host_addresses or not _is_literal(facts.sdp_host) or _is(facts.sdp_host, "loopback"):
        return
    same_family = {one for one in facts.public_host_addresses if (":" in one) == (":" in facts.sdp_host)}
    if same_family and facts.sdp_host not in same_family:
        yield warning(
            "addresses",
            f"sip.public_host {facts.public_host} is {', '.join(sorted(same_family))}, but SDP names {facts.sdp_host}",
            "Usually both are one machine's address: correct the DNS record or media.public_ip.",
        )


def _judge_unspecified(facts: AddressFacts, told: str) -> Finding:
    public = sorted(one for one in facts.interfaces if _is(one, "global"))
    if public:
        return ok("addresses", f"sip.listen is {told}; Contact names the address that a call came to")
    return fault(
        "addresses",
        f"sip.listen is {told}, this machine has no public address, and sip.public_host is not set: Contact "
        "names an address that carriers cannot reach",
        "Set sip.public_host to the name or address that they reach this machine by.",
    )


def _judge_own(facts: AddressFacts) -> Iterator[Finding]:
    if facts.public_host and _is(facts.public_host, "loopback") and facts.outside:
        yield fault(
            "addresses",
            f"sip.public_host is {facts.public_host}: peers would send ACK and BYE to themselves",
            "Set it to the name or address that they reach this machine by.",
        )


def judge_firewall(facts: FirewallFacts) -> Finding:
    if not facts.known:
        return ok(
            "firewall",
            "this user cannot see the packet filter, and no program can see a cloud's or a router's",
            f"Let in: {_ports(facts)}.",
        )
    missing = [
        (kind, first, last)
        for kind, first, last in facts.wanted
        if not _is_named(facts.rules, kind, first, last)
    ]
    if facts.drops and missing:
        return warning(
            "firewall",
            f"the packet filter drops what no rule names, and no rule names {_list(missing)}",
            f"Let in: {_ports(facts)}.",
        )
    if facts.drops:
        return ok(
            "firewall", "the packet filter has rules for the ports; a cloud's or a router's cannot be seen"
        )
    return ok(
        "firewall", "the packet filter of this machine lets all in; a cloud's or a router's cannot be seen"
    )


def _is_named(rules: str, kind: str, first: int, last: int) -> bool:
    """Whether some rule speaks of these ports, in the words of iptables or of nft."""
    for line in rules.splitlines():
        if not re.search(r"\bACCEPT\b|\baccept\b", line) or (kind not in line and "all" not in line):
            continue
        for low, high in re.findall(r"(?:--dports?|dport|spts?)[ :]+\{? ?(\d+)(?:[:-](\d+))?", line):
            if int(low) <= first and last <= int(high or low):
                return True
        if not re.search(r"dport|-i lo\b|state|ctstate|ct state|icmp|\biif", line) and re.search(
            rf"-p {kind} -j ACCEPT|^-A INPUT -j ACCEPT", line
        ):
            return True
    return False


def _ports(facts: FirewallFacts) -> str:
    return _list(facts.wanted)


def _list(ports: tuple[tuple[str, int, int], ...] | list[tuple[str, int, int]]) -> str:
    return ", ".join(
        f"{kind} {first}" if first == last else f"{kind} {first}-{last}" for kind, first, last in ports
    )


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is(host: str, what: str) -> bool:
    """Whether a host is a literal address of that kind: `loopback`, `unspecified`, `private`, `global`."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return what == "loopback" and host == "localhost"
    match what:
        case "loopback":
            return address.is_loopback
        case "unspecified":
            return address.is_unspecified
        case "private":
            return not (address.is_global or address.is_loopback or address.is_unspecified)
        case _:
            return address.is_global
