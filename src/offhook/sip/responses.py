"""Where responses go (RFC 3261 section 18.2, RFC 3581)."""

from __future__ import annotations

from .flow import Flow
from .headers import split_list
from .message import Request
from .via import Via

__all__ = ["dial_back_address", "note_source", "response_flow"]

DEFAULT_PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061}


def note_source(request: Request, flow: Flow) -> None:
    """
    Write into the top Via where the request really came from.

    `received` when the Via's host is not the source address or `rport` asks for it (RFC 3581 section 4), and
    the source port in `rport`. Responses copy the Via, so this is done once, before anything looks at it.
    """
    via = request.top_via
    wants_rport = via.has_param("rport")
    host, port = flow.remote
    if via.host.lower() == host and not wants_rport:
        return
    noted = via.with_param("received", host)
    if wants_rport:
        noted = noted.with_param("rport", str(port))
    others = split_list(request.headers.get_all("Via")[0])[1:]
    # The other views stay true; parsing them again for every request would cost a tenth of a call.
    views = {name: view for name, view in request.headers.cache.items() if name not in ("Via", "vias")}
    request.headers.set_first("Via", ", ".join([str(noted), *others]))
    request.headers.cache.update(views, Via=noted)


def response_flow(request: Request, flow: Flow) -> Flow:
    """
    Return the flow for responses to a request that came by `flow`.

    `maddr` is not followed: it would let a stranger choose an address for us to send to, and
    multicast SIP is not spoken here.
    """
    if flow.is_reliable:
        return flow
    via = request.top_via
    port = flow.remote[1] if via.has_param("rport") else sent_by_port(via, flow.transport)
    host, source_port = flow.remote
    return flow if port == source_port else Flow(flow.transport, flow.local, (host, port))


def dial_back_address(request: Request, flow: Flow) -> tuple[str, int]:
    """Return where to connect when the request's connection is gone (section 18.2.2)."""
    return flow.remote[0], sent_by_port(request.top_via, flow.transport)


def sent_by_port(via: Via, transport: str) -> int:
    return via.port or DEFAULT_PORTS[transport]
