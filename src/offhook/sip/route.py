"""
Where the next request of a dialog goes, and the reason in words.

The order (RFC 3261 section 12.2.1.1, and what NATs and firewalls add to it):

1. TCP and TLS: the live connection that the INVITE came by, or went by. It is the only path known to work;
   dialling back often meets a firewall. The Route headers are sent all the same. When it is gone, a live
   connection that brought a later request of the dialog serves as well (`usage`).
2. The first Route of the route set, else the Contact, by RFC 3263. On UDP, a Route whose host lies behind a NAT
   (see 3) is followed by the address that the INVITE came from: the proxy that wrote the Route sent it.
3. UDP with no route set: the Contact, unless it cannot be what the peer is reached by, in which case the
   address that the INVITE came from. That is so when the Contact's host is an address of private, shared, link-local,
   loopback or unspecified scope and is not the source address: a NAT stands between, and the source address has
   carried our responses already. A routable Contact other than the source is taken at its word (the peer moved
   the dialog to another box), so is the source's own address with any port. A Contact that is a
   name is tried first, and the source address when it does not resolve.

Requests too large for a datagram try TCP first where the URI leaves the transport open (`prefer_tcp`).

Addresses that a peer named are checked (`refusal`): a Record-Route must not make us talk to the
services of our own host.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from functools import lru_cache

from .dialog import Dialog
from .flow import Address, Flow
from .headers import HeaderError, parse_name_addr
from .uri import SipUri, UriError

__all__ = [
    "MAX_DATAGRAM",
    "MAX_TARGETS",
    "Attempt",
    "Hop",
    "Plan",
    "RouteError",
    "Target",
    "Way",
    "hop_for_uri",
    "plan_in_dialog",
    "prefer_tcp",
    "refusal",
]

TRANSPORTS = ("udp", "tcp", "tls")
MAX_TARGETS = 3
"Addresses tried for one request."
MAX_DATAGRAM = 1300
"Longer requests go by TCP where they can: IP would cut them up (RFC 3261 section 18.1.1)."
SOURCE = "INVITE's source address"
LATEST_SOURCE = "the source of the peer's last request"

_LOCAL_SCOPE = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.168.0.0/16", "::/128", "::1/128", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip


class RouteError(ValueError):
    """A URI that no request can be sent to."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One place to try, before DNS."""

    transport: str | None
    "`udp`, `tcp` or `tls`; `None` when NAPTR and SRV records decide (RFC 3263 section 4.1)."
    host: str
    port: int | None
    rule: str
    "What named it: `Record-Route`, `Contact`, `SOURCE`, `LATEST_SOURCE`, `Request-URI`."
    secure: bool = False
    "The URI was `sips`, or asked for TLS."
    trusted: bool = False
    "Named by our own side, or proven by traffic: `refusal` does not apply."
    fixed: bool = False
    "The transport was named, or is the only one known to be there; else it is a default that may be changed."

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport or 'sip'} {host}{port} from {self.rule}"


@dataclass(frozen=True, slots=True)
class Target:
    """An address to connect or send to."""

    transport: str
    host: str
    "A literal address."
    port: int
    name: str
    "The host that the hop named: what a TLS certificate must show."


@dataclass(frozen=True, slots=True)
class Attempt:
    """One target that was tried in vain."""

    hop: str
    "The target, and what named it: `192.0.2.1:5060 from Record-Route`."
    transport: str
    error: str
    errno: int | None = None

    def __str__(self) -> str:
        return f"{self.transport} {self.hop}: {self.error}".lstrip()


@dataclass(frozen=True, slots=True)
class Plan:
    """A live flow to use, or the hops to try in order."""

    flow: Flow | None
    hops: tuple[Hop, ...]
    text: str
    "With a flow: why it is used. With hops: why these. Without both: what is wrong."


@dataclass(frozen=True, slots=True)
class Way:
    """A flow that was found for a request, or none; and what was tried in vain before."""

    flow: Flow | None
    attempts: tuple[Attempt, ...] = ()
    rule: str = ""
    "What named the flow's address; empty when the plan named the flow itself."
    tried: frozenset[Target] = frozenset()
    "Targets used up for this request, the flow's own among them."
    others: bool = False
    "There are further targets, should this one be silent."


def hop_for_uri(uri: SipUri, rule: str, *, trusted: bool = False, transport: str | None = None) -> Hop:
    """
    Return the hop that a URI names. `transport` is used when the URI does not name one.

    Raises `RouteError` for schemes other than `sip` and `sips`, and for transports we do not have.
    """
    if uri.scheme not in ("sip", "sips"):
        raise RouteError(f"{rule} is a {uri.scheme}: URI, which names no host to send to")
    secure = uri.scheme == "sips"
    named = (uri.transport or "").lower()
    if named and named not in TRANSPORTS:
        raise RouteError(f"{rule} asks for transport {named!r}; there is udp, tcp and tls")
    maddr = uri.param("maddr")
    host = maddr or uri.host
    if secure:
        chosen: str | None = "tls" if named != "udp" else None
    elif named:
        chosen = named
    elif transport:
        chosen = transport
    else:
        chosen = "udp" if uri.port or _address(host) else None
    fixed = secure or bool(named) or transport is not None
    return Hop(chosen, host, uri.port, rule, secure or chosen == "tls", trusted, fixed)


def plan_in_dialog(dialog: Dialog, flow: Flow, *, alive: bool, moved_to: Address | None = None) -> Plan:
    """
    Return where the next request of `dialog` goes.

    `flow` is the INVITE's; `alive` says whether its connection is still open (any value on UDP). `moved_to` is where
    the peer's last request by UDP came from, when that was elsewhere: a NAT forgot the peer, and gave it a new address.
    Raises `RouteError` when nothing names a place.
    """
    if flow.is_reliable and alive:
        return Plan(flow, (), f"by the INVITE's connection, {flow}")
    gone = "the INVITE's connection is gone" if flow.is_reliable else ""
    if dialog.route_set:
        hop = _trust_peer(hop_for_uri(_route_uri(dialog.route_set[0]), "Record-Route"), flow)
        return Plan(None, _with_source(hop, flow, moved_to), gone)
    if flow.is_reliable:
        hop = hop_for_uri(_target_uri(dialog), "Contact", transport=flow.transport)
        return Plan(None, (_trust_peer(hop, flow),), gone)
    return _plan_udp_without_route(dialog, flow, moved_to)


def prefer_tcp(plan: Plan) -> Plan:
    """
    Return the plan for a request of more than `MAX_DATAGRAM` bytes: TCP before each hop that may be UDP.

    Section 18.1.1 goes back to UDP when TCP fails. A hop whose URI says `transport=udp` is taken at its word, and the
    INVITE's source address is known to take UDP only.
    """
    hops: list[Hop] = []
    for hop in plan.hops:
        if hop.transport in ("udp", None) and not hop.fixed and not hop.secure:
            hops.append(replace(hop, transport="tcp", fixed=True))
        hops.append(hop)
    if len(hops) == len(plan.hops):
        return plan
    why = "too large for a datagram, so TCP comes first"
    return replace(plan, hops=tuple(hops), text=f"{plan.text}; {why}" if plan.text else why)


def refusal(transport: str, host: str, port: int, *, peer: str) -> str | None:
    """
    Return why an address that a peer named must not be sent to, or `None` if it may.

    `peer` is the address that the INVITE itself came from: only a peer on loopback may name loopback.
    """
    address = _address(host)
    if address is None:
        return None
    # Python before 3.13 takes ::ffff:127.0.0.1 for no loopback address.
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_multicast or address.is_unspecified:
        return f"{host} is not an address of one host"
    if address.is_loopback and not _is_loopback(peer):
        return f"{host} is our own host's loopback address, named by {peer}"
    if port < 1024:
        return f"port {port} is below 1024, where no SIP server listens"
    return None


def _plan_udp_without_route(dialog: Dialog, flow: Flow, moved_to: Address | None) -> Plan:
    source = _source(flow, moved_to)
    try:
        contact = _trust_peer(hop_for_uri(_target_uri(dialog), "Contact"), flow)
    except RouteError as exc:
        return Plan(None, (source,), str(exc))
    if _address(contact.host) is None:
        return Plan(None, (contact, source), "")
    if _is_behind_nat(contact.host, source.host):
        return Plan(None, (source,), f"Contact host {contact.host} is behind a NAT")
    return Plan(None, (contact,), "")


def _with_source(hop: Hop, flow: Flow, moved_to: Address | None) -> tuple[Hop, ...]:
    if flow.is_reliable or _address(hop.host) is None or not _is_behind_nat(hop.host, flow.remote[0]):
        return (hop,)
    return hop, _source(flow, moved_to)


def _source(flow: Flow, moved_to: Address | None) -> Hop:
    address, rule = (flow.remote, SOURCE) if moved_to is None else (moved_to, LATEST_SOURCE)
    return Hop("udp", *address, rule, trusted=True, fixed=True)


def _trust_peer(hop: Hop, flow: Flow) -> Hop:
    """The peer's own address and port need no further proof."""
    if (hop.host, hop.port) == flow.remote:
        return replace(hop, trusted=True)
    return hop


def _route_uri(route: str) -> SipUri:
    try:
        uri = parse_name_addr(route).uri
    except (HeaderError, UriError) as exc:
        raise RouteError(f"Route {route!r} cannot be read: {exc}") from None
    if not isinstance(uri, SipUri):
        raise RouteError(f"Route {route!r} is not a SIP URI")
    return uri


def _target_uri(dialog: Dialog) -> SipUri:
    try:
        return SipUri.parse(dialog.remote_target)
    except UriError as exc:
        raise RouteError(f"Contact {dialog.remote_target!r} cannot be read: {exc}") from None


@lru_cache(maxsize=1024)
def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address is not None and address.is_loopback


@lru_cache(maxsize=1024)
def _is_behind_nat(contact: str, source: str) -> bool:
    address = _address(contact)
    assert address is not None
    if address == _address(source):
        return False
    return any(address.version == network.version and address in network for network in _LOCAL_SCOPE)
