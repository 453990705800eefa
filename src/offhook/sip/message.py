"""
SIP requests and responses: bytes to messages and back (RFC 3261 sections 7, 8 and 18.3).

`parse_message` judges syntax: the start line, the header lines, the length of the body. `validate_request` and
`validate_response` judge sense. Whoever receives a message calls both, in this order, before anything else; after
that the typed properties of From, To, Call-ID, CSeq, Via and (on requests) Contact do not raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from .grammar import LWS, is_token, split_list
from .headers import (
    ContentType,
    CSeq,
    HeaderError,
    Headers,
    Latin1Str,
    NameAddr,
    add_tag,
    header_key,
    parse_content_type,
    parse_cseq,
    parse_int,
    parse_name_addr,
)
from .status import REASONS, reason_phrase
from .uri import SipUri, UriError
from .via import Via

__all__ = [
    "MAX_HEADERS",
    "MAX_HEADER_VALUE",
    "MAX_MESSAGE",
    "MAX_VIAS",
    "METHODS",
    "REASONS",
    "MessageError",
    "Request",
    "Response",
    "create_response",
    "parse_message",
    "validate_request",
    "validate_response",
]

# Caps against messages made to hurt. 8 kB per value: carriers sign tokens of more than 1 kB into X- headers and
# Identity. 64 kB: a datagram cannot be larger.
MAX_MESSAGE = 65536
MAX_HEADERS = 256
MAX_HEADER_VALUE = 8192
MAX_VIAS = 50

METHODS = frozenset(
    {"ACK", "BYE", "CANCEL", "INFO", "INVITE", "MESSAGE", "NOTIFY", "OPTIONS", "PRACK", "PUBLISH", "REFER"}
    | {"REGISTER", "SUBSCRIBE", "UPDATE"}
)
"The methods of the IANA registry."

# Headers that a request or response must have, once (RFC 3261 section 8.1.1). Max-Forwards is missing from
# what RFC 2543 clients send (RFC 4475 section 3.4.1), so its absence is no fault.
_MANDATORY = ("From", "To", "Call-ID", "CSeq")
_ONCE = (*_MANDATORY, "Max-Forwards", "Content-Length", "Content-Type")

T = TypeVar("T")


class MessageError(ValueError):
    """
    A message cannot be used.

    `status_hint` is the status to answer with; `None` means drop it in silence. With a status, `request` is what
    could be read of it, if that is enough to answer: it has a top Via that parses, and what else it has of From,
    To, Call-ID and CSeq is as received and may be missing or malformed. So answer it statelessly, with
    `create_response`. `text` is the fault, for people.
    """

    def __init__(self, text: str, status_hint: int | None = None, request: Request | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.status_hint = status_hint
        self.request = request


@dataclass(eq=False, slots=True)
class _Message:
    """What requests and responses share. The typed properties raise `HeaderError` on a field they cannot read."""

    headers: Headers = field(default_factory=Headers, kw_only=True)
    body: bytes = field(default=b"", kw_only=True)
    version: str = field(default="SIP/2.0", kw_only=True)

    def _view(self, name: str, parse: Callable[[str], T]) -> T:
        cache = self.headers.cache
        view: T | None = cache.get(name)
        if view is None:
            value = self.headers.get(name)
            if value is None:
                raise HeaderError(name, "header is missing")
            cache[name] = view = parse(value)
        return view

    @property
    def vias(self) -> list[Via]:
        """Every Via, topmost first. Raises `HeaderError` if any is malformed."""
        cache = self.headers.cache
        vias: list[Via] | None = cache.get("vias")
        if vias is None:
            vias = cache["vias"] = [Via.parse(text) for text in self.headers.values("Via")]
            if vias and not (self.headers.get("Via") or "").startswith(
                ","
            ):  # else the first line may have none
                cache["Via"] = vias[0]
        return vias

    @property
    def top_via(self) -> Via:
        return self._view("Via", _parse_top_via)

    @property
    def from_(self) -> NameAddr:
        return self._view("From", _parse_from)

    @property
    def to(self) -> NameAddr:
        return self._view("To", _parse_to)

    @property
    def call_id(self) -> str:
        return self._view("Call-ID", _parse_call_id)

    @property
    def cseq(self) -> CSeq:
        return self._view("CSeq", parse_cseq)

    @property
    def contact(self) -> NameAddr | None:
        """The first Contact; `None` if there is none, or it is `*`."""
        return self._view("Contact", _parse_contact) if "Contact" in self.headers else None

    @property
    def content_type(self) -> ContentType | None:
        return self._view("Content-Type", parse_content_type) if "Content-Type" in self.headers else None

    @property
    def max_forwards(self) -> int | None:
        """`None` if it is absent or out of range, which is treated alike (RFC 4475 section 3.1.2.4)."""
        value = self.headers.get("Max-Forwards")
        try:
            return None if value is None else parse_int("Max-Forwards", value, 255)
        except HeaderError:
            return None

    def _encode(self, start_line: str) -> bytes:
        if "\r" in start_line or "\n" in start_line:
            raise ValueError("start line with a line break")
        lines = [start_line]
        length = str(len(self.body))
        is_told = is_mixed = False
        for name, value in self.headers:
            if header_key(name) == "content-length":
                if not is_told:  # the first tells the length; a second would contradict it
                    is_told = True
                    lines.append(f"{name}: {length}")
            elif type(value) is Latin1Str:
                is_mixed = True
                lines.append(Latin1Str(f"{name}: {value}"))  # the whole line was read so, its name too
            else:
                lines.append(f"{name}: {value}")
        if not is_told:
            lines.append(f"Content-Length: {length}")
        lines.append("\r\n")
        if is_mixed:
            return b"\r\n".join([_encode_line(line) for line in lines]) + self.body
        return "\r\n".join(lines).encode("utf-8", "replace") + self.body


@dataclass(eq=False, slots=True)
class Request(_Message):
    """A SIP request. `uri` is the Request-URI as received or to be sent."""

    method: str
    uri: str

    def __bytes__(self) -> bytes:
        """Return the message as it goes on the wire, with a right Content-Length. Raises `ValueError`."""
        return self._encode(f"{self.method} {self.uri} {self.version}")

    @property
    def request_uri(self) -> SipUri:
        """The parsed Request-URI. Raises `UriError`."""
        return SipUri.parse(self.uri)


@dataclass(eq=False, slots=True)
class Response(_Message):
    """A SIP response."""

    status: int
    reason: str

    def __bytes__(self) -> bytes:
        """Return the message as it goes on the wire, with a right Content-Length. Raises `ValueError`."""
        return self._encode(f"{self.version} {self.status} {self.reason}")


def _encode_line(line: str) -> bytes:
    return line.encode("latin-1" if type(line) is Latin1Str else "utf-8", "replace")


def parse_message(data: bytes) -> Request | Response:
    """
    Parse one message: a datagram, or what `StreamFramer` cut out of a stream.

    Bytes beyond Content-Length are dropped; without Content-Length the body goes to the end (RFC 3261 section
    18.3). Raises `MessageError`.
    """
    start = len(data) - len(data.lstrip(b"\r\n"))
    end = data.find(b"\r\n\r\n", start, start + MAX_MESSAGE)
    head = data[start:end] if end >= 0 else data[start : start + MAX_MESSAGE].removesuffix(b"\r\n")
    message, fault = _parse_head(head)
    if len(data) - start > MAX_MESSAGE:
        raise _refusal(message, 513, f"message of more than {MAX_MESSAGE} bytes")
    if fault:
        raise _refusal(message, 400, fault)
    if end < 0:
        raise _refusal(message, 400, "no empty line after the headers")
    message.body = _body(message, data[end + 4 :])
    return message


def _body(message: Request | Response, rest: bytes) -> bytes:
    lengths = message.headers.get_all("Content-Length")
    if not lengths:
        return rest
    if len(lengths) > 1:
        raise _refusal(message, 400, "Content-Length: more than one")
    try:
        length = parse_int("Content-Length", lengths[0])
    except HeaderError as error:
        raise _refusal(message, 400, str(error)) from None
    if length > len(rest):
        raise _refusal(message, 400, f"Content-Length: {length}, but only {len(rest)} bytes came")
    return rest[:length]


def _parse_head(head: bytes) -> tuple[Request | Response, str | None]:
    """Return the message without its body, and the fault that makes it unusable, if any."""
    lines, fault = _decode_lines(head)
    items: list[tuple[str, str]] = []
    for line in lines[1 : MAX_HEADERS + 1]:
        name, colon, value = line.partition(":")
        name, value = name.rstrip(LWS), value.strip(LWS)
        if not colon or not name:
            fault = fault or f"header line without a name and a colon: {line[:80]!r}"
        elif len(value) > MAX_HEADER_VALUE:
            fault = fault or f"{name[:40]}: more than {MAX_HEADER_VALUE} characters"
        else:
            items.append((name, Latin1Str(value) if type(line) is Latin1Str else value))
    if len(lines) > MAX_HEADERS + 1:
        fault = fault or f"more than {MAX_HEADERS} headers"
    headers = Headers.from_wire(items)
    if sum([1 + value.count(",") for value in headers.get_all("Via")]) > MAX_VIAS:
        fault = fault or f"more than {MAX_VIAS} Via"
    return _parse_start_line(lines[0], headers), fault


def _decode_lines(head: bytes) -> tuple[list[str], str | None]:
    """Cut the head into lines, unfolded. A line that is not UTF-8 is read as Latin-1."""
    fault = None
    breaks = head.count(b"\r\n")
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks:
        # Never kept: a lone CR or LF that is mirrored in a response would end the line for some peers.
        fault = "line break other than CRLF"
        head = b"\r\n".join([line.replace(b"\r", b" ").replace(b"\n", b" ") for line in head.split(b"\r\n")])
    if b"\r\n " in head or b"\r\n\t" in head:
        head = _unfold(head)
    try:
        return head.decode().split("\r\n"), fault
    except UnicodeDecodeError:
        return [_decode_line(line) for line in head.split(b"\r\n")], fault


def _unfold(head: bytes) -> bytes:
    lines: list[list[bytes]] = []
    for line in head.split(b"\r\n"):
        if line.startswith((b" ", b"\t")) and lines:
            lines[-1].append(line.strip(b" \t"))
        else:
            lines.append([line.rstrip(b" \t") if lines else line])
    return b"\r\n".join([b" ".join(parts) for parts in lines])


def _decode_line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return Latin1Str(line.decode("latin-1"))


def _parse_start_line(line: str, headers: Headers) -> Request | Response:
    if line[:4].upper() == "SIP/":
        return _parse_status_line(line, headers)
    # More than one space between the parts, or some at the end, is forgiven (RFC 4475 sections 3.1.2.9, 3.1.2.10).
    parts = [part for part in line.split(" ") if part]
    if len(parts) < 2 or parts[-1][:4].upper() != "SIP/" or not is_token(parts[0]):
        raise MessageError(f"not a SIP message: {line[:80]!r}")
    request = Request(parts[0], " ".join(parts[1:-1]), headers=headers)
    if parts[-1].upper() != "SIP/2.0":
        raise _refusal(request, 505, f"version {parts[-1][:20]!r}")
    if len(parts) != 3:
        raise _refusal(request, 400, f"Request-URI missing, or with a space in it: {line[:80]!r}")
    return request


def _parse_status_line(line: str, headers: Headers) -> Response:
    version, _, rest = line.partition(" ")
    code, _, reason = rest.lstrip(" ").partition(" ")
    if version.upper() != "SIP/2.0":
        raise MessageError(f"response of version {version[:20]!r}")
    if len(code) != 3 or not code.isascii() or not code.isdigit() or not 100 <= int(code) <= 699:
        raise MessageError(f"response with status {code[:20]!r}")
    return Response(int(code), reason, headers=headers)


def validate_request(request: Request) -> None:
    """
    Check what RFC 3261 section 8.2 takes for granted: mandatory headers, once each, that parse; a Request-URI and a
    Contact that parse; a CSeq that names the method.

    What needs a user agent's knowledge is not checked: methods, URI schemes, extensions, content types. Raises
    `MessageError` with status 400, or 501 for an unknown method whose CSeq names another; `None` for an ACK,
    which is never answered.
    """
    try:
        if not request.vias:
            raise HeaderError("Via", "header is missing")
        _validate_headers(request)
        _validate_contact(request)
        request.request_uri  # noqa: B018  (raises)
    except (HeaderError, UriError) as error:
        raise _refusal(request, 400, str(error)) from None
    if request.cseq.method != request.method:
        # An unknown method might have rules of its own: 501 stays true for it (RFC 4475 section 3.1.2.18).
        status = 400 if request.method in METHODS else 501
        raise _refusal(request, status, f"CSeq: names {request.cseq.method[:40]}, not {request.method[:40]}")


def validate_response(response: Response) -> None:
    """
    Check that a response can be matched to what we sent: one Via (RFC 3261 section 8.1.3.3), From, To, Call-ID and
    CSeq that parse. Raises `MessageError` without a status: it is dropped.
    """
    try:
        if len(response.vias) != 1:
            raise HeaderError("Via", f"{len(response.vias)} values: the response is not for us")
        _validate_headers(response)
    except HeaderError as error:
        raise MessageError(str(error)) from None


def create_response(
    request: Request,
    status: int,
    reason: str | None = None,
    *,
    to_tag: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    content_type: str | None = None,
) -> Response:
    """
    Build a response to a request (RFC 3261 section 8.2.6.2).

    Via, From, To, Call-ID and CSeq are mirrored as received, `to_tag` added to a To without one. Record-Route is
    mirrored where the response can make a dialog, Timestamp in a 100. Raises `HeaderError` for `headers` that
    cannot be sent.
    """
    theirs = request.headers
    items = _mirrored(theirs, to_tag).copy()
    if request.method == "INVITE" and 100 < status < 300:
        items += [("Record-Route", value) for value in theirs.get_all("Record-Route")]
    if status == 100 and (timestamp := theirs.get("Timestamp")) is not None:
        items.append(("Timestamp", timestamp))
    built = Headers.from_wire(items)
    built.extend(headers)
    if body and content_type:
        built.add("Content-Type", content_type)
    return Response(status, reason_phrase(status) if reason is None else reason, headers=built, body=body)


def _mirrored(theirs: Headers, to_tag: str | None) -> list[tuple[str, str]]:
    """Return the lines that all responses repeat: an INVITE has three of them, two with our tag."""
    cached: tuple[str | None, list[tuple[str, str]]] | None = theirs.cache.get("mirrored")
    if cached is not None and cached[0] == to_tag:
        return cached[1]
    lines = [("Via", value) for value in theirs.get_all("Via")]
    # The first of each: a request with more is refused, and the refusal should not repeat the fault.
    lines += [
        (name, add_tag(value, to_tag) if name == "To" and to_tag else value)
        for name in _MANDATORY
        if (value := theirs.get(name)) is not None
    ]
    theirs.cache["mirrored"] = to_tag, lines
    return lines


def _validate_headers(message: Request | Response) -> None:
    headers = message.headers
    if not headers.are_single:
        for name in _ONCE:
            if headers.count(name) > 1:
                raise HeaderError(name, "more than one")
    _ = message.from_, message.to, message.call_id, message.cseq


def _validate_contact(request: Request) -> None:
    contact = request.contact
    if contact is None or request.method != "INVITE":
        return
    # Section 8.1.1.8: exactly one SIP URI, since requests of the dialog will go there.
    if not isinstance(contact.uri, SipUri):
        raise HeaderError("Contact", "not a SIP URI", str(contact.uri))
    if request.headers.count("Contact") > 1 or len(request.headers.values("Contact")) > 1:
        raise HeaderError("Contact", "more than one")


def _refusal(message: Request | Response, status: int, text: str) -> MessageError:
    if isinstance(message, Response) or message.method == "ACK":
        return MessageError(text)
    answerable = _salvage(message)
    return MessageError(text, status if answerable else None, answerable)


def _salvage(request: Request) -> Request | None:
    """Return the request with what can be read of its Via values, or `None` if that is not even the first."""
    vias: list[str] = []
    for element in _first_vias(request.headers):
        via = Via.salvage(element)
        if via is None:
            break
        vias.append(element if _is_whole(element) else str(via))
    if not vias:
        return None
    items = [(name, value) for name, value in request.headers if header_key(name) != "via"]
    headers = Headers.from_wire([("Via", element) for element in vias] + items)
    return Request(request.method, request.uri, headers=headers)


def _first_vias(headers: Headers) -> list[str]:
    elements: list[str] = []
    for line in headers.get_all("Via"):
        elements += split_list(line)
        # A message with more was refused for that: reading on would be work for an attacker.
        if len(elements) >= MAX_VIAS:
            break
    return elements[:MAX_VIAS]


def _is_whole(via: str) -> bool:
    try:
        Via.parse(via)
    except HeaderError:
        return False
    return True


def _parse_top_via(value: str) -> Via:
    elements = split_list(value)
    if not elements:
        raise HeaderError("Via", "empty")
    return Via.parse(elements[0])


def _parse_from(value: str) -> NameAddr:
    return parse_name_addr(value, "From")


def _parse_to(value: str) -> NameAddr:
    return parse_name_addr(value, "To")


def _parse_call_id(value: str) -> str:
    if not value or " " in value or "\t" in value:
        raise HeaderError("Call-ID", "empty, or with white space in it", value)
    return value


def _parse_contact(value: str) -> NameAddr | None:
    elements = split_list(value)
    if not elements:
        raise HeaderError("Contact", "empty")
    return None if elements[0] == "*" else parse_name_addr(elements[0], "Contact")
