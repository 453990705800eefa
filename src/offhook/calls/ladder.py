"""
A call as a ladder: caller, Offhook and app side by side, time downwards. The command line and the pages draw it.

`from_timeline` makes rows of a timeline as the API gives it. What comes from the network is in the rows as it came:
who shows it takes out what would be obeyed (`printable`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from .verdict.story import listed, mapping, number, text

__all__ = [
    "HOSTED_NAMES",
    "NAMES",
    "Arrow",
    "Lane",
    "Note",
    "Row",
    "from_entry",
    "from_timeline",
    "numbered",
    "printable",
    "sip_label",
]


class Lane(IntEnum):
    CALLER = 0
    OFFHOOK = 1
    APP = 2


@dataclass(frozen=True, slots=True)
class Arrow:
    """Something that one party sent to its neighbour."""

    at: float
    "Seconds since the call began."
    source: Lane
    target: Lane
    label: str
    style: str = "cyan"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened at one party."""

    at: float
    lane: Lane
    text: str
    style: str = "dim"
    wide: bool = False
    "Use the whole width: for what was said."


Row = Arrow | Note

NAMES = ("caller", "Offhook", "app")
HOSTED_NAMES = ("upstream", "Offhook", "app")
"The lanes of a call that another service answers: what is known of its caller is known there."


def printable(shown: str) -> str:
    """Return text that a terminal shows and does not obey: no control, format or direction characters."""
    if shown.isprintable():  # nearly always, and many times faster than to look at each character
        return shown
    spaced = (" " if char in "\r\n\t" else char for char in shown)
    return "".join(
        char for char in spaced if unicodedata.category(char)[0] != "C" and char not in "\u2028\u2029"
    )


def from_timeline(timeline: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a body of `GET /v1/realtime/calls/{id}/timeline`; any JSON will do, as for the judge."""
    return [row for _, rows in numbered(timeline) for row in rows]


def numbered(timeline: Mapping[str, Any]) -> Iterator[tuple[int, list[Row]]]:
    """Yield each entry's place in the body's `data` and its rows."""
    told: str | None = None
    for place, entry in enumerate(map(mapping, listed(timeline.get("data")))):
        rows = from_entry(entry)
        if entry.get("kind") == "webhook":
            error = entry.get("error")
            if error and error == told:
                rows = rows[:1]  # a phone rings for ten attempts; one of them needs to say why
            told = error
        yield place, rows


def from_entry(entry: Mapping[str, Any]) -> list[Row]:
    """Return the rows of one entry; an entry of a kind not known here is a note."""
    at = max(0.0, number(entry.get("ms")) or 0.0) / 1000
    title = str(entry.get("title", ""))
    match entry.get("kind"):
        case "sip":
            return [_sip(at, entry, title)]
        case "webhook":
            return _webhook(at, entry, title)
        case "rest":
            good = entry.get("status") in (None, 200, 202)
            return [Arrow(at, Lane.APP, Lane.OFFHOOK, title, "blue" if good else "bold red")]
        case "session":
            return [Arrow(at, Lane.APP, Lane.OFFHOOK, f"sideband: {title}", "blue")]
        case "sideband":
            return [_sideband(at, entry, title)]
        case "relay":
            good = "no answer" not in title and (number(entry.get("upstream_status")) or 200) < 400
            return [Arrow(at, Lane.OFFHOOK, Lane.CALLER, title, "cyan" if good else "bold red")]
        case "heard":
            listener = "upstream" if entry.get("upstream") else "Offhook"
            return [Note(at, Lane.OFFHOOK, f"{listener} hears: “{title}”", "green", wide=True)]
        case "said":
            return [Note(at, Lane.OFFHOOK, f"agent says: “{title}”", "bold magenta", wide=True)]
        case "tool_call":
            return [Note(at, Lane.OFFHOOK, f"tool: {title}", "magenta", wide=True)]
        case "interrupted":
            return [Note(at, Lane.OFFHOOK, f"the caller interrupts: {title.rstrip(': ')}")]
        case "turn":
            return [Note(at, Lane.OFFHOOK, title, "yellow")]
        case "call":
            # What moved inside a SIP leg stands in its messages too; it is there for whoever doubts them.
            return [Note(at, Lane.OFFHOOK, title, "dim" if title.startswith("leg: ") else "bold")]
        case "error":
            return [Note(at, Lane.OFFHOOK, title, "bold red")]
        case "upstream" | "usage" as kind:
            return [Note(at, Lane.OFFHOOK, f"{kind}: {title}", "yellow")]
        case _:
            return [Note(at, Lane.OFFHOOK, title)]


def _sip(at: float, entry: Mapping[str, Any], title: str) -> Row:
    label = sip_label(text(entry.get("message")) or title)
    if entry.get("direction") == "in":
        return Arrow(at, Lane.CALLER, Lane.OFFHOOK, label)
    return Arrow(at, Lane.OFFHOOK, Lane.CALLER, label)


def sip_label(message: str) -> str:
    """
    Return what a SIP message says, in a few words.

    `INVITE`, `200 OK (INVITE)`, `REFER to tel:+15550100`, `NOTIFY 180 Ringing`.
    """
    head, _, body = message.partition("\r\n\r\n")
    start, *lines = head.split("\r\n")
    fields = dict(_header(line) for line in reversed(lines) if ":" in line)
    if start.startswith("SIP/2.0 "):
        method = fields.get("cseq", "").partition(" ")[2].strip()
        return start.removeprefix("SIP/2.0 ") + (f" ({method})" if method else "")
    method = start.partition(" ")[0]
    if method == "REFER" and (target := fields.get("refer-to") or fields.get("r")):
        return f"REFER to {target.strip('<> ')}"
    if method == "NOTIFY" and body.startswith("SIP/2.0 "):
        return f"NOTIFY {body.splitlines()[0].removeprefix('SIP/2.0 ')}"
    return method


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def _webhook(at: float, entry: Mapping[str, Any], title: str) -> list[Row]:
    """Return an arrow, and below it in full what went wrong: an arrow has no room for a reason."""
    if "attempt" not in entry:
        return [Note(at, Lane.OFFHOOK, title, "yellow")]
    status = entry.get("status")
    good = isinstance(status, int) and 200 <= status < 300
    outcome = "no answer" if status is None else str(status)
    label = f"webhook: {outcome} in {number(entry.get('duration_ms')) or 0:.0f} ms"
    rows: list[Row] = [Arrow(at, Lane.OFFHOOK, Lane.APP, label, "yellow" if good else "bold red")]
    if not good and entry.get("error"):
        rows.append(Note(at, Lane.OFFHOOK, f"webhook: {entry['error']}", "red", wide=True))
    return rows


def _sideband(at: float, entry: Mapping[str, Any], title: str) -> Row:
    ends = (Lane.OFFHOOK, Lane.APP) if entry.get("direction") == "out" else (Lane.APP, Lane.OFFHOOK)
    return Arrow(at, *ends, f"sideband: {title}", "blue")
