"""
Dialogs of an INVITE, either side (RFC 3261 section 12).

The route set is fixed when the dialog is made and is kept byte for byte: carriers put
opaque hints into later Record-Routes, and proxies that record twice compare what comes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .headers import HeaderError, Headers, add_tag, parse_name_addr
from .message import Request, Response
from .uri import SipUri, UriError

__all__ = ["Dialog", "DialogId"]

DialogId = tuple[str, str, str]
"Call-ID, our tag, the peer's tag (empty when an RFC 2543 peer sent none)."


@dataclass(slots=True)
class Dialog:
    """What the two ends of a call have agreed on; one object per peer that answered."""

    call_id: str
    local_tag: str
    remote_tag: str
    local: str
    "Our From (To, in the peer's requests) as a header value, tag included."
    remote: str
    "The peer's, as it wrote it."
    remote_target: str
    "The Contact's URI: what the Request-URI of our next request says."
    route_set: tuple[str, ...]
    local_seq: int
    "The CSeq number of our last request."
    remote_seq: int
    "The highest CSeq number that the peer used; -1 before its first request."

    @property
    def id(self) -> DialogId:
        return (self.call_id, self.local_tag, self.remote_tag)

    @classmethod
    def from_invite(cls, invite: Request, local_tag: str) -> Dialog:
        """Return the UAS's dialog. Section 12.1.1: the Record-Routes in the order received."""
        return cls(
            call_id=invite.call_id,
            local_tag=local_tag,
            remote_tag=invite.from_.tag or "",
            local=add_tag(invite.headers.get("To") or "", local_tag),
            remote=invite.headers.get("From") or "",
            remote_target=_contact_of(invite) or str(invite.from_.uri),
            route_set=tuple(invite.headers.values("Record-Route")),
            local_seq=0,
            remote_seq=invite.cseq.number,
        )

    @classmethod
    def from_response(cls, invite: Request, response: Response) -> Dialog:
        """Return the UAC's dialog. Section 12.1.2: the Record-Routes in reverse."""
        return cls(
            call_id=invite.call_id,
            local_tag=invite.from_.tag or "",
            remote_tag=response.to.tag or "",
            local=invite.headers.get("From") or "",
            remote=response.headers.get("To") or "",
            remote_target=_contact_of(response) or invite.uri,
            route_set=tuple(reversed(response.headers.values("Record-Route"))),
            local_seq=invite.cseq.number,
            remote_seq=-1,
        )

    def create_request(
        self,
        method: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
    ) -> Request:
        """Return the next request of this dialog, without Via: whoever picks the flow adds it."""
        self.local_seq += 1
        return self._request(method, self.local_seq, headers, body, content_type)

    def create_ack(self, cseq: int) -> Request:
        """Return the ACK to the 2xx of INVITE number `cseq`, without Via (section 13.2.2.4)."""
        return self._request("ACK", cseq, (), b"", None)

    def accepts(self, request: Request) -> bool:
        """Take note of the request's CSeq; `False` when it does not rise (section 12.2.2: answer 500)."""
        number = request.cseq.number
        if number <= self.remote_seq:
            return False
        self.remote_seq = number
        return True

    def refresh_target(self, message: Request | Response) -> None:
        """Take the Contact of a re-INVITE, an UPDATE, or of a 2xx to ours (section 12.2)."""
        self.remote_target = _contact_of(message) or self.remote_target

    def _request(
        self,
        method: str,
        cseq: int,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        content_type: str | None,
    ) -> Request:
        uri, routes = self._routing()
        items = [("Max-Forwards", "70")]
        items += [("Route", route) for route in routes]
        items += [
            ("From", self.local),
            ("To", self.remote),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
            *headers,
        ]
        if content_type is not None:
            items.append(("Content-Type", content_type))
        return Request(method, uri, headers=Headers(items), body=body)

    def _routing(self) -> tuple[str, tuple[str, ...]]:
        """Return Request-URI and Routes; section 12.2.1.1 for a first hop that is a strict router."""
        target = _as_request_uri(self.remote_target)
        if not self.route_set:
            return target, ()
        try:
            first = parse_name_addr(self.route_set[0]).uri
        except HeaderError:
            return target, self.route_set
        if isinstance(first, SipUri) and not first.has_param("lr"):
            return _as_request_uri(str(first)), (*self.route_set[1:], f"<{self.remote_target}>")
        return target, self.route_set


def _as_request_uri(text: str) -> str:
    """Return the URI without what must not stand in a Request-URI: headers, and `method` (table in section 19.1.1)."""
    try:
        uri = SipUri.parse(text)
    except UriError:
        return text
    if not uri.headers and not uri.has_param("method"):
        return text
    params = tuple(param for param in uri.params if param[0].lower() != "method")
    return str(replace(uri, headers="", params=params))


def _contact_of(message: Request | Response) -> str | None:
    """Return the Contact's URI, or `None` when there is none that can be read."""
    try:
        contact = message.contact
    except HeaderError:
        return None
    return None if contact is None else str(contact.uri)
