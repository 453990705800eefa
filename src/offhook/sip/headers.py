"""
SIP header fields: the list as received, and typed views of single fields (RFC 3261 sections 7.3, 20 and 25).

`Headers` keeps names, values, order and repeats as they came. Nothing is parsed until a typed view is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from .grammar import (
    LWS,
    Params,
    end_of_quoted,
    find_param,
    format_params,
    has_param,
    is_token,
    quote,
    split,
    split_list,
    unquote,
)
from .uri import SipUri, UriError

__all__ = [
    "MAX_PARAMS",
    "CSeq",
    "ContentType",
    "HeaderError",
    "Headers",
    "Latin1Str",
    "NameAddr",
    "add_tag",
    "canonical",
    "full_name",
    "header_key",
    "is_token",
    "parse_content_type",
    "parse_cseq",
    "parse_int",
    "parse_name_addr",
    "parse_params",
    "quote",
    "split_list",
    "unquote",
]

# Nothing real comes near it; thousands of parameters would cost tens of milliseconds.
MAX_PARAMS = 100

# The IANA registry of compact forms.
_COMPACT = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
# The names that calls are made of. To bring them to small letters for every line of every message took a tenth of a
# call's time in this room.
_USUAL = (
    *("Accept", "Allow", "Call-ID", "Contact", "Content-Disposition", "Content-Encoding", "Content-Length"),
    *("Content-Type", "CSeq", "Date", "Diversion", "Event", "Expires", "From", "Max-Forwards", "Min-SE"),
    *(
        "P-Asserted-Identity",
        "P-Charging-Vector",
        "Privacy",
        "Reason",
        "Record-Route",
        "Remote-Party-ID",
        "Require",
    ),
    *("Route", "Server", "Session-Expires", "Supported", "Timestamp", "To", "User-Agent", "Via"),
)
# Names whose capitals are not those of their words.
_IRREGULAR = {
    "call-id": "Call-ID",
    "cseq": "CSeq",
    "mime-version": "MIME-Version",
    "min-se": "Min-SE",
    "p-charging-vector": "P-Charging-Vector",
    "rack": "RAck",
    "rseq": "RSeq",
    "sip-etag": "SIP-ETag",
    "sip-if-match": "SIP-If-Match",
    "www-authenticate": "WWW-Authenticate",
}


class HeaderError(ValueError):
    """A header field cannot be read. `header` is its full name, `value` what it held (shortened)."""

    def __init__(self, header: str, fault: str, value: str = "") -> None:
        self.header = header
        self.value = value[:200]
        super().__init__(f"{header}: {fault}" + (f": {value[:80]!r}" if value else ""))


class _Keys(dict[str, str]):
    """The key of every spelling of a name: of usual ones looked up, of others made. It does not grow."""

    def __missing__(self, name: str) -> str:
        key = name.lower()
        return _COMPACT.get(key, key) if len(key) == 1 else key


_KEYS: Final = _Keys({spelt: name.lower() for name in _USUAL for spelt in (name, name.lower())})


class Latin1Str(str):
    """A value that was not UTF-8 on the wire. It is sent as the bytes it came as."""

    __slots__ = ()


def canonical(name: str) -> str:
    """Return the full name, in its usual capitals, of a header given in compact form or in any case."""
    key = header_key(name)
    return _IRREGULAR.get(key) or "-".join([word.capitalize() for word in key.split("-")])


def full_name(name: str) -> str:
    """Return the full name for a compact form (`f`: `From`); any other name as it is spelt."""
    return canonical(name) if len(name) == 1 and name.lower() in _COMPACT else name


def header_key(name: str) -> str:
    """Return the lower-case full name: what makes two spellings of one header equal."""
    return _KEYS[name]


class Headers:
    """
    The header fields of one message, in order.

    Lookups take any case and either the full or the compact name. Iterating gives `(name, value)` as received:
    names in the sender's spelling, values unfolded and without the white space around them.
    """

    __slots__ = ("_first", "_items", "_keys", "cache")

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        """Raises `HeaderError` for a name that is not a token or a value with a line break."""
        self._items: list[tuple[str, str]] = []
        self._keys: list[str] = []
        self._first: dict[str, int] | None = None
        "Where the first line of each name is; made when a name is looked up, as what is only sent never is."
        self.cache: dict[str, Any] = {}
        "Typed views of these headers, kept by the message. Any change of the headers empties it."
        self.extend(items)

    @classmethod
    def from_wire(cls, items: list[tuple[str, str]]) -> Headers:
        """Take fields that the message parser has cut at line breaks already, or that other headers had."""
        headers = cls.__new__(cls)
        headers._items = items
        headers._keys = []
        headers._first = None
        headers.cache = {}
        return headers

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, name: str) -> bool:
        return _KEYS[name] in (self._first or self._index())

    def __eq__(self, other: object) -> bool:
        return self._items == other._items if isinstance(other, Headers) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it can change

    def __repr__(self) -> str:
        return f"Headers({self._items!r})"

    def copy(self) -> Headers:
        """Return headers that can be changed without changing these."""
        return Headers.from_wire(list(self._items))

    def count(self, name: str) -> int:
        """Return how many lines have that name."""
        key = _KEYS[name]
        first = self._first or self._index()
        if key not in first:
            return 0
        return 1 if len(first) == len(self._keys) else self._keys.count(key)

    @property
    def are_single(self) -> bool:
        """Whether no two lines have one name."""
        return len(self._first or self._index()) == len(self._keys)

    def get(self, name: str) -> str | None:
        """Return the value of the first line of that name, or `None`."""
        at = (self._first or self._index()).get(_KEYS[name])
        return None if at is None else self._items[at][1]

    def get_all(self, name: str) -> list[str]:
        """Return the value of every line of that name, in order."""
        key = _KEYS[name]
        first = self._first or self._index()
        if key not in first:
            return []
        at = first[key]
        if len(first) == len(self._keys):
            return [self._items[at][1]]
        return [self._items[at][1] for at, found in enumerate(self._keys) if found == key]

    def values(self, name: str) -> list[str]:
        """
        Return the elements of a comma-separated header, over all its lines, each as received.

        Not for headers that are no lists, such as Date, Subject, From or the authentication headers.
        """
        elements: list[str] = []
        for value in self.get_all(name):
            if type(value) is Latin1Str:
                elements += [Latin1Str(element) for element in split_list(value)]
            else:
                elements += split_list(value)
        return elements

    def add(self, name: str, value: str) -> None:
        """Append a line. Raises `HeaderError` for a name that is not a token or a value with a line break."""
        _check(name, value)
        self._items.append((name, value))
        self._changed()

    def extend(self, lines: Iterable[tuple[str, str]]) -> None:
        """Append lines. Raises `HeaderError` like `add`."""
        for name, value in lines:
            _check(name, value)
            self._items.append((name, value))
        self._changed()

    def prepend(self, name: str, value: str) -> None:
        """Put a line before all others. Raises `HeaderError` like `add`."""
        _check(name, value)
        self._items.insert(0, (name, value))
        self._changed()

    def set(self, name: str, value: str) -> None:
        """Put one line in the place of the first of that name and drop the others; append if there is none."""
        _check(name, value)
        at = (self._first or self._index()).get(_KEYS[name])
        if at is None:
            self.add(name, value)
            return
        self._items[at] = (name, value)
        self._drop(_KEYS[name], keep=at)

    def set_first(self, name: str, value: str) -> None:
        """Replace the first line of that name and keep the others. Raises `KeyError` if there is none."""
        _check(name, value)
        at = (self._first or self._index()).get(_KEYS[name])
        if at is None:
            raise KeyError(name)
        self._items[at] = (name, value)
        self._changed()

    def remove(self, name: str) -> None:
        """Drop every line of that name, if any."""
        self._drop(_KEYS[name], keep=-1)

    def _drop(self, key: str, keep: int) -> None:
        self._items = [item for at, item in enumerate(self._items) if at == keep or _KEYS[item[0]] != key]
        self._changed()

    def _changed(self) -> None:
        self._first = None
        self.cache.clear()

    def _index(self) -> dict[str, int]:
        self._keys = keys = [_KEYS[name] for name, _ in self._items]
        last = len(keys) - 1
        self._first = first = dict(zip(reversed(keys), range(last, -1, -1), strict=True))
        return first


def _check(name: str, value: str) -> None:
    # A line break in a value would let whoever chose the value write headers of their own.
    if not is_token(name):
        raise HeaderError(name[:40], "header name is not a token")
    if "\r" in value or "\n" in value:
        raise HeaderError(name, "value with a line break", value)


@dataclass(frozen=True, slots=True)
class NameAddr:
    """A From, To, Contact, Route, Record-Route, Refer-To, ... value (RFC 3261 section 20.10)."""

    display_name: str
    "Without quotes and escapes; empty if there is none."
    uri: SipUri | str
    "The raw text when the scheme is not sip, sips or tel, or when the URI cannot be parsed."
    params: Params = ()
    "The header's parameters, values as received (quoted ones in their quotes)."

    def __str__(self) -> str:
        name = f"{quote(self.display_name)} " if self.display_name else ""
        return f"{name}<{self.uri}>{format_params(self.params)}"

    def param(self, name: str) -> str | None:
        """Return a parameter's value, unquoted; `None` if it is absent or has no value."""
        value = find_param(self.params, name)
        return unquote(value) if value else value

    def has_param(self, name: str) -> bool:
        return has_param(self.params, name)

    @property
    def tag(self) -> str | None:
        return find_param(self.params, "tag") or None


@dataclass(frozen=True, slots=True)
class CSeq:
    """A CSeq value (RFC 3261 section 20.16)."""

    number: int
    method: str

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


@dataclass(frozen=True, slots=True)
class ContentType:
    """A Content-Type value (RFC 3261 section 20.15). `type` and `subtype` are in lower case."""

    type: str
    subtype: str
    params: Params = ()

    def __str__(self) -> str:
        return f"{self.type}/{self.subtype}{format_params(self.params)}"

    @property
    def media_type(self) -> str:
        """For comparing: `application/sdp`."""
        return f"{self.type}/{self.subtype}"

    def param(self, name: str) -> str | None:
        """Return a parameter's value, unquoted; `None` if it is absent or has no value."""
        value = find_param(self.params, name)
        return unquote(value) if value else value


def add_tag(value: str, tag: str) -> str:
    """Return a From or To value with that tag, unless it has one already or cannot be parsed."""
    try:
        if parse_name_addr(value).tag:
            return value
    except HeaderError:
        return value
    # The parser forgives a semicolon at the end; two in a row would be malformed.
    tagged = f"{value.rstrip(' ;')};tag={tag}"
    return Latin1Str(tagged) if type(value) is Latin1Str else tagged


def parse_name_addr(text: str, header: str = "name-addr") -> NameAddr:
    """
    Parse `"Name" <uri>;params`, `Name <uri>;params` or `uri;params`.

    An unquoted name may hold any character but `<` and `"`: trunks send such, and nothing is ambiguous. Spaces
    around the URI are dropped. Without angle brackets, parameters belong to the header, and a `?` is refused
    (section 20.10). Raises `HeaderError` that names `header`.
    """
    return _parse_again(text, header) if len(text) <= _REMEMBERED else _parse_name_addr(text, header)


def _parse_name_addr(text: str, header: str) -> NameAddr:
    text = text.strip(LWS)
    name = ""
    if text.startswith('"'):
        end = end_of_quoted(text, 0)
        if end < 0:
            raise HeaderError(header, "quoted name without its closing quote", text)
        name = unquote(text[: end + 1])
        rest = text[end + 1 :].lstrip(LWS)
        if not rest.startswith("<"):
            raise HeaderError(header, "no <URI> after the quoted name", text)
    else:
        name, bracket, rest = text.partition("<")
        if not bracket or '"' in name:
            return _parse_addr_spec(text, header)
        name = name.strip(LWS)
        rest = "<" + rest
    raw, bracket, rest = rest[1:].partition(">")
    raw = raw.strip(LWS)
    rest = rest.strip(LWS)
    if not bracket or not raw:
        raise HeaderError(header, "no URI between angle brackets", text)
    if rest and not rest.startswith(";"):
        raise HeaderError(header, "text other than parameters after the URI", text)
    return NameAddr(name, _parse_uri(raw), parse_params(header, rest[1:], text) if rest else ())


_parse_again = lru_cache(maxsize=1024)(_parse_name_addr)
"What a call's ACK and BYE say in From, To and Contact is what its INVITE said."
_REMEMBERED: Final = 256
"Characters; what is longer is seldom said twice, and would take room."


def parse_cseq(text: str) -> CSeq:
    """Parse `number method`. The number is below 2**31 (RFC 3261 section 8.1.1.5). Raises `HeaderError`."""
    parts = text.split()
    if len(parts) != 2 or not is_token(parts[1]):
        raise HeaderError("CSeq", "not a number and a method", text)
    return CSeq(parse_int("CSeq", parts[0], 2**31 - 1), parts[1])


def parse_content_type(text: str) -> ContentType:
    """Parse `type/subtype;params`. Raises `HeaderError`."""
    head, semicolon, params = text.partition(";")
    kind, slash, subtype = head.partition("/")
    kind, subtype = kind.strip(LWS).lower(), subtype.strip(LWS).lower()
    if not slash or not is_token(kind) or not is_token(subtype):
        raise HeaderError("Content-Type", "not type/subtype", text)
    return ContentType(kind, subtype, parse_params("Content-Type", params, text) if semicolon else ())


def parse_int(header: str, text: str, maximum: int = 2**32 - 1) -> int:
    """Parse a header of decimal digits, such as Expires or Content-Length. Raises `HeaderError`."""
    digits = text.strip(LWS)
    if not (digits.isascii() and digits.isdigit()):
        raise HeaderError(header, "not a number of decimal digits", text)
    digits = digits.lstrip("0") or "0"
    # The length first: the time to convert digits grows with the square of their number.
    if len(digits) > 20 or int(digits) > maximum:
        raise HeaderError(header, f"number above {maximum}", text)
    return int(digits)


def parse_params(header: str, text: str, value: str) -> Params:
    """Parse `name=value;name`. Raises `HeaderError` that names `header` and quotes `value`, the whole field."""
    params: list[tuple[str, str | None]] = []
    if text.count(";") >= MAX_PARAMS:
        raise HeaderError(header, f"more than {MAX_PARAMS} parameters", value)
    pieces = split(text, ";")
    # One semicolon too many at the end is common and harmless. More are refused (RFC 4475 section 3.1.2.1).
    if not pieces[-1].strip(LWS):
        pieces.pop()
    for piece in pieces:
        name, equals, param = piece.partition("=")
        name, param = name.strip(LWS), param.strip(LWS)
        if not is_token(name):
            raise HeaderError(header, "empty or malformed parameter", value)
        if param.startswith('"'):
            if end_of_quoted(param, 0) != len(param) - 1:
                raise HeaderError(header, "malformed quoted parameter", value)
        elif " " in param or "\t" in param:
            raise HeaderError(header, "parameter with white space in its value", value)
        params.append((name, param if equals else None))
    return tuple(params)


def _parse_addr_spec(text: str, header: str) -> NameAddr:
    raw, semicolon, params = text.partition(";")
    raw = raw.strip(LWS)
    if not raw or ":" not in raw or any(c in raw for c in '" <>'):
        raise HeaderError(header, "no URI", text)
    if "?" in raw:
        raise HeaderError(header, "URI with `?` needs angle brackets", text)
    return NameAddr("", _parse_uri(raw), parse_params(header, params, text) if semicolon else ())


def _parse_uri(raw: str) -> SipUri | str:
    try:
        uri = SipUri.parse(raw)
    except UriError:
        return raw
    return uri if uri.scheme in ("sip", "sips", "tel") else raw
