"""docs/reference/realtime-api.md, read: its sections, the lines of their tables, and the types that they are about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .sdk_types import CLIENT_EVENTS, SERVER_EVENTS

__all__ = ["EVENTS", "PAGE", "ROOT", "SECTIONS", "STOPS", "Line", "Section", "events_of", "section"]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/realtime-api.md").read_text()
EVENTS = {**CLIENT_EVENTS, **SERVER_EVENTS}


@dataclass(frozen=True)
class Line:
    """One line of a table: what it is about, and its cells by the heads of their columns."""

    name: str
    cells: Mapping[str, str]

    @property
    def here(self) -> str:
        return self.cells.get("here") or self.cells.get("from a client", "")

    @property
    def word(self) -> str:
        """What becomes of it, in a word."""
        return _bold(self.here)

    @property
    def comes(self) -> str:
        """Whether a client is sent it: `sent` or `not sent`; empty where the line does not say."""
        word = _bold(self.cells.get("to a client") or self.here)
        return word if word.endswith("sent") else ""

    @property
    def refusal(self) -> tuple[str, str]:
        found = re.match(r"\*\*refused\*\* `(\w+)`, `([^`]+)`", self.here)
        assert found, f"{self.name}: a refusal names its code and its param"
        return found[1], found[2]


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    tables: tuple[tuple[tuple[str, ...], tuple[Line, ...]], ...]

    @property
    def types(self) -> list[str]:
        found = re.search(r"^Types? ((?:`\w+`[,\s]*)+)\.", self.text, re.M)
        return re.findall(r"`(\w+)`", found[1]) if found else []

    def lines(self, head: str) -> list[Line]:
        return [line for heads, lines in self.tables for line in lines if heads[0] == head]

    @property
    def events(self) -> list[str]:
        return [line.name for line in self.lines("event")]


def _bold(cell: str) -> str:
    found = re.match(r"\*\*([a-z ]+)\*\*", cell)
    return found[1] if found else ""


def _tables(text: str) -> Iterator[tuple[tuple[str, ...], tuple[Line, ...]]]:
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        head, _, *rows = (
            [cell.strip() for cell in row.strip("|\n").split("|")] for row in table.splitlines()
        )
        assert all(len(row) == len(head) for row in rows), f"a line has not as many cells as its head: {rows}"
        yield tuple(head), tuple(Line(row[0].strip("`"), dict(zip(head, row, strict=True))) for row in rows)


SECTIONS = [
    Section(title, text, tuple(_tables(text)))
    for title, text in re.findall(r"^##+ (.*)\n((?:(?!##).*\n)*)", PAGE, re.M)
]
STOPS = frozenset(name for one in SECTIONS for name in one.types)
"Types that have a section of their own, and are not told of where they stand in another."


def section(title: str) -> Section:
    return next(one for one in SECTIONS if one.title == title)


def events_of(line: Line, events: Iterable[str]) -> set[str]:
    """Return the events that a field's line is about: all, all but some, or those whose names end so."""
    cell = line.cells["of"]
    tails = tuple(re.findall(r"`([^`]+)`", cell))
    events = set(events)
    if cell.startswith("all"):
        return {event for event in events if not tails or event not in tails}
    for tail in tails:
        assert any(event.endswith(tail) for event in events), f"{line.name}: no event here ends with {tail}"
    return {event for event in events if event.endswith(tails)}
