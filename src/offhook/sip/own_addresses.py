"""What this side calls itself: Via and Contact for a flow, and the sockets that need no driver to find."""

from __future__ import annotations

from dataclasses import dataclass

from .flow import Address, Flow, format_address
from .responses import DEFAULT_PORTS
from .route import Hop, refusal

__all__ = ["Listening", "OwnAddresses"]

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  (compared with, not bound)


@dataclass(frozen=True, slots=True)
class Listening:
    """An address that the driver has bound."""

    transport: str
    host: str
    port: int


class OwnAddresses:
    def __init__(self, public_host: str) -> None:
        self._public_host = public_host
        self._listening: list[Listening] = []

    def add(self, listening: Listening) -> None:
        self._listening.append(listening)

    def via_for(self, flow: Flow, branch: str) -> str:
        """Return a Via for requests on that flow; `rport` asks for responses to the port that we send from."""
        return f"SIP/2.0/{flow.transport.upper()} {format_address(self._address(flow))};branch={branch};rport"

    def contact_for(self, flow: Flow, *, secure: bool) -> str:
        """Return our Contact: the listener of the flow's transport. `secure` asks for a `sips` URI."""
        transport = "" if flow.transport == "udp" else f";transport={flow.transport}"
        scheme = "sips" if secure and flow.transport == "tls" else "sip"
        return f"<{scheme}:{format_address(self._address(flow))}{transport}>"

    def standing(self, transport: str, local: Address) -> Address:
        """Return `local` where something listens there; else the first of that transport and family that does."""
        same = [each for each in self._listening if each.transport == transport]
        for each in same:
            if each.port == local[1] and each.host in (local[0], *WILDCARDS):
                return local
        for each in same:
            if (":" in each.host) == (":" in local[0]):
                return (local[0] if each.host in WILDCARDS else each.host), each.port
        return local

    def direct_flow(self, hop: Hop, near: Flow | None) -> Flow | None:
        """
        Return the UDP flow to a literal address, which needs neither DNS nor a connection; else `None`.

        `near` is the INVITE's flow: the same socket is used for all of a call.
        """
        if hop.transport != "udp" or not _is_literal(hop.host):
            return None
        port = hop.port or DEFAULT_PORTS["udp"]
        if not hop.trusted and (near is None or refusal("udp", hop.host, port, peer=near.remote[0])):
            return None
        local = self._udp_socket(":" in hop.host, near)
        return None if local is None else Flow("udp", local, (hop.host, port))

    def _udp_socket(self, is_ipv6: bool, near: Flow | None) -> Address | None:
        if self._listening and all(each.transport != "udp" for each in self._listening):
            return None  # the call is of an earlier process, which had one
        if near is not None and near.transport == "udp":
            return near.local if (":" in near.local[0]) == is_ipv6 else None
        for listening in self._listening:
            host = listening.host
            if listening.transport == "udp" and host not in WILDCARDS and (":" in host) == is_ipv6:
                return host, listening.port
        return None

    def _address(self, flow: Flow) -> Address:
        host, port = flow.local
        ports = [listening.port for listening in self._listening if listening.transport == flow.transport]
        # A connection that we dialled has an ephemeral port here; nobody can reach us at it.
        if ports and port not in ports:
            port = ports[0]
        return self._public_host or host, port


def _is_literal(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
