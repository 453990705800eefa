"""
Session descriptions as text (RFC 4566).

The parser takes what real peers send: any line ending, stray blanks, missing `s=` and `t=` lines, `c=` in odd
places, attributes that it does not know. Lines keep their order and their words; meaning is looked up on demand. What
an offer means for us is decided in `offhook.media.negotiate`.
"""

from __future__ import annotations

import ipaddress
import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, get_args

__all__ = [
    "Connection",
    "Direction",
    "MediaDescription",
    "RtpMap",
    "SdpError",
    "SessionDescription",
    "read_rtpmap",
]

MAX_BYTES: Final = 65536
MAX_LINES: Final = 2000
MAX_MEDIA: Final = 16

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]

Line = tuple[str, str]
"""One line: its letter and what follows the `=`."""
_LETTERS: Final = frozenset(string.ascii_letters)


class SdpError(ValueError):
    """The text is no session description; the message names the line and the fault."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A `c=` line: where a peer wants to be sent to."""

    address_type: str
    "`IP4` or `IP6`."
    host: str
    "As written, without a multicast TTL."

    @classmethod
    def parse(cls, value: str) -> Connection:
        """Parse `IN IP4 192.0.2.1`. Raises `SdpError`."""
        words = _words(value)
        if len(words) < 3 or words[0].upper() != "IN":
            raise SdpError(f"c={value!r}: want `IN IP4 <address>` or `IN IP6 <address>`")
        return cls(words[1].upper(), words[2].split("/")[0].strip("[]"))

    @classmethod
    def of(cls, host: str) -> Connection:
        """Return the connection line for one of our own addresses."""
        return cls("IP6" if ":" in host else "IP4", host)

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The literal address, or `None` when the line names a host."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"IN {self.address_type} {self.host}"


@dataclass(frozen=True, slots=True)
class RtpMap:
    """What a payload type number stands for."""

    payload_type: int
    encoding: str
    "The encoding name, as written. Compare without regard to case (RFC 4855 section 3)."
    clock_rate: int
    channels: int = 1

    @classmethod
    def parse(cls, value: str) -> RtpMap:
        """Parse `101 telephone-event/8000`. Raises `SdpError`."""
        words = _words(value, 1)
        parts = words[1].split("/") if len(words) == 2 else []
        number = _integer(words[0], 127) if words else None
        clock_rate = _integer(parts[1].strip(), 2**31) if len(parts) > 1 else None
        if number is None or clock_rate is None:
            raise SdpError(f"a=rtpmap:{value!r}: want `<payload type> <encoding>/<clock rate>`")
        channels = _integer(parts[2].strip(), 255) if len(parts) > 2 else 1
        return cls(number, parts[0].strip(), clock_rate, channels or 1)

    def __str__(self) -> str:
        channels = f"/{self.channels}" if self.channels > 1 else ""
        return f"{self.payload_type} {self.encoding}/{self.clock_rate}{channels}"


STATIC: Final = {
    number: RtpMap(number, encoding, clock_rate)
    for number, encoding, clock_rate in (
        (0, "PCMU", 8000),
        (3, "GSM", 8000),
        (4, "G723", 8000),
        (8, "PCMA", 8000),
        (9, "G722", 8000),
        (13, "CN", 8000),
        (15, "G728", 8000),
        (18, "G729", 8000),
    )
}
"""Payload types that need no `a=rtpmap` (RFC 3551 table 4); those that telephones use."""


@dataclass(slots=True)
class MediaDescription:
    """One `m=` line and the lines below it."""

    kind: str
    "`audio`, `video`, `text`, `image`, ..."
    port: int
    "0 in an answer refuses the stream; in an offer it is a stream that is not wanted."
    protocol: str
    formats: tuple[str, ...]
    port_count: int = 1
    lines: list[Line] = field(default_factory=list)

    @classmethod
    def parse(cls, value: str) -> MediaDescription:
        """Parse what follows `m=`. Raises `SdpError`."""
        words = _words(value)
        if len(words) < 3:
            raise SdpError(f"m={value!r}: want `<media> <port> <protocol> <formats>`")
        port_text, _, count_text = words[1].partition("/")
        port = _integer(port_text, 65535)
        count = _integer(count_text, 65535) if count_text else 1
        if port is None or count is None:
            raise SdpError(f"m={value!r}: {words[1]!r} is no port")
        return cls(words[0].lower(), port, words[2], tuple(words[3:]), count)

    def attributes(self, name: str) -> Iterator[str]:
        """Yield the values of all `a=name:value` lines; a bare `a=name` gives an empty value."""
        return _attributes(self.lines, name)

    def attribute(self, name: str) -> str | None:
        """Return the first value of an attribute, or `None` if there is none."""
        return next(self.attributes(name), None)

    @property
    def connection(self) -> Connection | None:
        """This stream's own `c=` line. Raises `SdpError` when it cannot be understood."""
        return _connection(self.lines)

    @property
    def direction(self) -> Direction | None:
        """This stream's own direction attribute, or `None`."""
        return _direction(self.lines)

    def rtpmap(self) -> dict[int, RtpMap]:
        """
        Return what the stream's payload types stand for, in the order of the `m=` line.

        Static types need no `a=rtpmap`. Numbers that nothing explains, and lines that cannot be read, are left out.
        """
        return read_rtpmap(self.formats, self.attributes("rtpmap"))

    def fmtp(self, payload_type: int) -> str | None:
        """Return the parameters of one payload type, or `None`."""
        for value in self.attributes("fmtp"):
            number, _, parameters = value.partition(" ")
            if number == str(payload_type):
                return parameters.strip()
        return None

    def __str__(self) -> str:
        port = str(self.port) if self.port_count == 1 else f"{self.port}/{self.port_count}"
        head = ("m", " ".join((self.kind, port, self.protocol, *self.formats)))
        return _text([head, *self.lines])


@dataclass(slots=True)
class SessionDescription:
    """A whole description: the session's lines, then the media in order."""

    lines: list[Line] = field(default_factory=list)
    media: list[MediaDescription] = field(default_factory=list)

    @classmethod
    def parse(cls, data: bytes | str) -> SessionDescription:
        """
        Parse a description.

        Raises `SdpError` when it is too large, is no SDP at all, or has an `m=` line that cannot be understood.
        """
        session = cls()
        lines = session.lines
        for line in _split(data):
            if line[0] == "m":
                if len(session.media) >= MAX_MEDIA:
                    raise SdpError(f"more than {MAX_MEDIA} m= lines")
                session.media.append(MediaDescription.parse(line[1]))
                lines = session.media[-1].lines
            else:
                lines.append(line)
        if not any(letter == "v" for letter, _ in session.lines):
            raise SdpError("no v= line: this is no session description")
        return session

    def value(self, letter: str) -> str | None:
        """Return the first session-level line with this letter, or `None`."""
        return next((value for name, value in self.lines if name == letter), None)

    def attributes(self, name: str) -> Iterator[str]:
        """Yield the values of a session-level attribute."""
        return _attributes(self.lines, name)

    @property
    def connection(self) -> Connection | None:
        """The session-level `c=` line. Raises `SdpError` when it cannot be understood."""
        return _connection(self.lines)

    @property
    def direction(self) -> Direction | None:
        """The session-level direction attribute, or `None`."""
        return _direction(self.lines)

    def __str__(self) -> str:
        return _text(self.lines) + "".join(map(str, self.media))

    def __bytes__(self) -> bytes:
        return str(self).encode("utf-8", "surrogateescape")


def read_rtpmap(formats: Iterable[str], values: Iterable[str]) -> dict[int, RtpMap]:
    """Do what `MediaDescription.rtpmap` does, for these formats and the values of these `a=rtpmap` lines."""
    named: dict[int, RtpMap] = {}
    for value in values:
        try:
            entry = RtpMap.parse(value)
        except SdpError:
            continue
        named.setdefault(entry.payload_type, entry)
    known: dict[int, RtpMap] = {}
    for text in formats:
        number = _integer(text, 127)
        if number is not None and (found := named.get(number) or STATIC.get(number)):
            known.setdefault(number, found)
    return known


_DIRECTIONS: Final[dict[str, Direction]] = {word: word for word in get_args(Direction)}


def _words(value: str, most: int = -1) -> list[str]:
    """Split at blanks: those of SDP, not the many that Unicode knows."""
    return [word for word in value.replace("\t", " ").strip(" ").split(" ", most) if word]


def _split(data: bytes | str) -> list[Line]:
    if len(data) > MAX_BYTES:
        raise SdpError(f"{len(data)} bytes: more than {MAX_BYTES}")
    # No NUL means anything, wherever it stands (RFC 4566 section 9: byte-string); some peers close with them. They go
    # before decoding, which sees characters in the bytes to both sides of them.
    text = (
        data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
        if isinstance(data, bytes)
        else data.replace("\0", "")
    )
    # Peers end lines with CRLF, LF, and, rarely, CR. A mark of byte order is seen as well.
    raw = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n", MAX_LINES)
    if len(raw) > MAX_LINES:
        raise SdpError(f"more than {MAX_LINES} lines")
    found = []
    for each in raw:
        line = each.strip(" \t")
        if not line:
            continue
        letter, equals, value = line.partition("=")
        letter = letter.strip()
        if not equals or letter not in _LETTERS:
            raise SdpError(f"line {_shown(line)!r}: want `<letter>=<value>`")
        found.append((letter, value.lstrip(" ") if letter != "s" else value))
    return found


def _shown(line: str) -> str:
    """Return what may be shown of a broken line, which is no key (RFC 4568)."""
    return re.split("inline", line, maxsplit=1, flags=re.IGNORECASE | re.ASCII)[0][:80]


def _attributes(lines: list[Line], name: str) -> Iterator[str]:
    for letter, value in lines:
        # Most lines are another's: that is seen without taking them apart.
        if letter == "a" and name in value:
            found, _, rest = value.partition(":")
            if found.strip() == name:
                yield rest.strip()


def _connection(lines: list[Line]) -> Connection | None:
    value = next((value for letter, value in lines if letter == "c"), None)
    if value is None:
        return None
    return _parse_connection(value) if len(value) <= _REMEMBERED else Connection.parse(value)


_parse_connection = lru_cache(maxsize=1024)(Connection.parse)
"A trunk has few addresses that its sound comes from."
_REMEMBERED: Final = 64
"Characters; what is longer is no address."


def _direction(lines: list[Line]) -> Direction | None:
    for letter, value in lines:
        if letter == "a" and ":" not in value and (found := _DIRECTIONS.get(value.strip().lower())):
            return found
    return None


def _integer(text: str, largest: int) -> int | None:
    # str.isdigit alone would let other scripts' digits in.
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        return None
    value = int(text)
    return value if value <= largest else None


def _text(lines: list[Line]) -> str:
    return "".join(f"{letter}={value}\r\n" for letter, value in lines)
