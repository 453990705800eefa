"""
A call drawn as a ladder: caller, Offhook and app side by side, time downwards.

All of it is a function of data: `from_timeline` makes rows of a timeline as the API gives it, `draw` makes lines
of rows.
What comes from the network is printed without its control characters.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

__all__ = [
    "HOSTED_NAMES",
    "NAMES",
    "Arrow",
    "Lane",
    "Note",
    "Row",
    "draw",
    "from_entry",
    "from_timeline",
    "header",
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
_TIME = 9
_MIN_WIDTH = 60


def printable(text: str) -> str:
    """Return text that a terminal shows and does not obey: no control, format or direction characters."""
    shown = (" " if char in "\r\n\t" else char for char in text)
    return "".join(
        char for char in shown if unicodedata.category(char)[0] != "C" and char not in "\u2028\u2029"
    )


# From the API's timeline to rows.


def from_timeline(timeline: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a body of `GET /v1/realtime/calls/{id}/timeline`."""
    rows: list[Row] = []
    told: str | None = None
    for entry in timeline.get("data", ()):
        new = from_entry(entry)
        if entry.get("kind") == "webhook":
            error = entry.get("error")
            if error and error == told:
                new = new[:1]  # a phone rings for ten attempts; one of them needs to say why
            told = error
        rows += new
    return rows


def from_entry(entry: Mapping[str, Any]) -> list[Row]:
    """Return the rows of one entry; an entry of a kind not known here is a note."""
    at = float(entry.get("ms", 0.0)) / 1000
    title = str(entry.get("title", ""))
    match entry.get("kind"):
        case "sip":
            return [_sip(at, entry, title)]
        case "webhook":
            return _webhook(at, entry, title)
        case "rest":
            good = entry.get("status") in (None, 200, 202)
            return [Arrow(at, Lane.APP, Lane.OFFHOOK, title, "blue" if good else "bold red")]
        case "sideband":
            return [_sideband(at, entry, title)]
        case "relay":
            good = "no answer" not in title and int(entry.get("upstream_status") or 200) < 400
            return [Arrow(at, Lane.OFFHOOK, Lane.CALLER, title, "cyan" if good else "bold red")]
        case "heard":
            listener = "upstream" if entry.get("upstream") else "Offhook"
            return [Note(at, Lane.OFFHOOK, f"{listener} hears: “{title}”", "green", wide=True)]
        case "said":
            return [Note(at, Lane.OFFHOOK, f"agent says: “{title}”", "bold magenta", wide=True)]
        case "tool_call":
            return [Note(at, Lane.OFFHOOK, f"tool: {title}", "magenta", wide=True)]
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
    label = sip_label(str(entry.get("message") or title))
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
    label = f"webhook: {outcome} in {float(entry.get('duration_ms') or 0):.0f} ms"
    rows: list[Row] = [Arrow(at, Lane.OFFHOOK, Lane.APP, label, "yellow" if good else "bold red")]
    if not good and entry.get("error"):
        rows.append(Note(at, Lane.OFFHOOK, f"webhook: {entry['error']}", "red", wide=True))
    return rows


def _sideband(at: float, entry: Mapping[str, Any], title: str) -> Row:
    ends = (Lane.OFFHOOK, Lane.APP) if entry.get("direction") == "out" else (Lane.APP, Lane.OFFHOOK)
    return Arrow(at, *ends, f"sideband: {title}", "blue")


# From rows to lines.


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where the three lanes stand."""

    width: int

    @property
    def lanes(self) -> tuple[int, int, int]:
        first, last = _TIME + 1, self.width - 2
        return first, first + (last - first) // 2, last


def header(width: int = 80, names: Sequence[str] = NAMES) -> Text:
    """Return the line that names the lanes, from the left."""
    lanes = _Grid(max(width, _MIN_WIDTH)).lanes
    line = " " * lanes[2]
    for name, lane in zip(names, lanes, strict=True):
        start = min(lane - len(name) // 2, lanes[2] + 2 - len(name))
        line = f"{line[:start]}{name}{line[start + len(name) :]}"
    return Text(line.rstrip(), style="bold")


def draw(rows: Iterable[Row], width: int = 80) -> Iterator[Text]:
    """Yield the lines of rows, in their order, `width` cells wide (at least 60)."""
    grid = _Grid(max(width, _MIN_WIDTH))
    for row in rows:
        lines = [_arrow(row, grid)] if isinstance(row, Arrow) else _note(row, grid)
        for index, line in enumerate(lines):
            time = f"{row.at:{_TIME}.3f}" if index == 0 else " " * _TIME
            yield Text(time, style="dim").append_text(line)


def _arrow(row: Arrow, grid: _Grid) -> Text:
    left, right = sorted((row.source, row.target))
    start, end = grid.lanes[left] + 1, grid.lanes[right]
    room = end - start - 5
    label = printable(row.label)
    if cell_len(label) > room:
        label = set_cell_size(label, room - 1).rstrip() + "…"
    line = "─" * (end - start - 4 - cell_len(label))
    drawn = f"─ {label} {line}▶" if row.target > row.source else f"◀─ {label} {line}"
    return _between_bars(grid, start, drawn, row.style)


def _note(row: Note, grid: _Grid) -> list[Text]:
    lanes = grid.lanes
    if row.wide:
        start, end = lanes[0] + 2, lanes[2]
    elif row.lane is Lane.CALLER:
        start, end = lanes[0] + 2, lanes[1] - 1
    else:
        start, end = lanes[1] + 2, lanes[2] - 1
    pieces: Sequence[str] = textwrap.wrap(printable(row.text), max(8, end - start)) or [""]
    if row.lane is Lane.APP and not row.wide:
        longest = max(map(len, pieces))
        pieces = [piece.ljust(longest).rjust(end - start) for piece in pieces]
    return [_between_bars(grid, start, piece, row.style) for piece in pieces]


def _between_bars(grid: _Grid, start: int, drawn: str, style: str) -> Text:
    """Put something on a line of bars; what it covers is not drawn."""
    end = start + cell_len(drawn)
    before = "".join("│" if column in grid.lanes else " " for column in range(_TIME, start))
    after = "".join("│" if column in grid.lanes else " " for column in range(end, grid.lanes[2] + 1))
    return Text(before, style="dim").append(drawn, style=style).append(after, style="dim")
