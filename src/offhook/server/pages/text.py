"""How pages write what they are given: numbers and times for people, and what came from the network as mere text."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from offhook.calls.ladder import printable
from offhook.clock import iso_time
from offhook.sip.headers import HeaderError, parse_name_addr
from offhook.sip.uri import SipUri

__all__ = ["FILTERS", "Party", "duration", "ms", "party", "shown"]

MAX_SHOWN = 300
MAX_MARKS = 3
"On one letter: vocalised Hebrew and Vietnamese need as many."
NONE = "—"
"What stands where there is nothing to say."


def shown(value: object, limit: int = MAX_SHOWN) -> str:
    """Return a value as one line that shows and does not act: no control or direction characters, no end of pages."""
    if value is None:
        return ""
    text = str(value)
    if len(text) <= limit:
        return _calm(printable(text))
    return f"{_calm(printable(text[:limit]))}… ({len(text):,} characters)"


def _calm(text: str) -> str:
    """Leave out marks that pile up on one letter: they would be drawn over the lines above and below."""
    if text.isascii():
        return text
    kept, marks = [], 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        if marks <= MAX_MARKS:
            kept.append(char)
    return "".join(kept)


def raw(value: object, limit: int = 64 * 1024) -> str:
    """Return text of several lines, as for a SIP message."""
    text = "" if value is None else str(value)
    lines = (printable(line) for line in text[:limit].replace("\r\n", "\n").split("\n"))
    more = f"\n… ({len(text):,} characters)" if len(text) > limit else ""
    return "\n".join(lines) + more


def sentence(value: object) -> str:
    """Return text that begins with a capital letter."""
    text = "" if value is None else str(value)
    return text[:1].upper() + text[1:]


def ms(value: object) -> str:
    """Return milliseconds with a unit that suits them."""
    if not isinstance(value, int | float):
        return NONE
    if value < 1000:
        return f"{value:.0f} ms"
    return f"{value / 1000:.2f} s" if value < 10_000 else f"{value / 1000:.1f} s"


def duration(seconds: object) -> str:
    """Return `0:42`, `12:05`, `1:02:03`."""
    if not isinstance(seconds, int | float):
        return NONE
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def iso(seconds: object) -> str:
    """Return Unix seconds for a `datetime` attribute."""
    return iso_time(float(seconds)) if isinstance(seconds, int | float) else ""


def utc(seconds: object) -> str:
    """Return Unix seconds to read, where no script makes local time of them."""
    text = iso(seconds)
    return f"{text[:19].replace('T', ' ')} UTC" if text else NONE


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a call, by its From or To header."""

    name: str
    number: str
    host: str
    header: str


def party(header: object) -> Party:
    """Read a header as far as it can be read; what cannot be is its number as it stands."""
    text = str(header or "")
    try:
        parsed = parse_name_addr(text)
    except HeaderError:
        return Party("", shown(text, 80), "", shown(text))
    if isinstance(parsed.uri, SipUri):
        number, host = parsed.uri.user or parsed.uri.host, parsed.uri.host if parsed.uri.user else ""
    else:
        number, host = str(parsed.uri), ""
    return Party(shown(parsed.display_name, 60), shown(number, 60), shown(host, 60), shown(text))


def details(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return what an entry of a timeline says besides its message, without what every entry has."""
    common = ("number", "at", "ms", "kind", "title", "message")
    return {shown(name, 60): shown(value, 2_000) for name, value in entry.items() if name not in common}


FILTERS = {
    "shown": shown,
    "raw": raw,
    "sentence": sentence,
    "ms": ms,
    "duration": duration,
    "iso": iso,
    "utc": utc,
    "party": party,
    "details": details,
}
