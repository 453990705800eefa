"""
A call's ladder drawn for a terminal: `draw` makes lines of rows.

What comes from the network is printed without its control characters.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.text import Text

from offhook.calls.ladder import NAMES, Arrow, Lane, Note, Row, printable

__all__ = ["draw", "header"]

_TIME = 9
_MIN_WIDTH = 60


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
    pieces: Sequence[str] = list(_wrap(printable(row.text), max(8, end - start))) or [""]
    if row.lane is Lane.APP and not row.wide:
        longest = max(map(len, pieces))
        pieces = [piece.ljust(longest).rjust(end - start) for piece in pieces]
    return [_between_bars(grid, start, piece, row.style) for piece in pieces]


def _wrap(text: str, cells: int) -> Iterator[str]:
    """Yield lines of at most so many cells; of some scripts each character takes two, and no blank parts the words."""
    for line in textwrap.wrap(text, cells):
        yield from chop_cells(line, cells) if cell_len(line) > cells else (line,)


def _between_bars(grid: _Grid, start: int, drawn: str, style: str) -> Text:
    """Put something on a line of bars; what it covers is not drawn."""
    end = start + cell_len(drawn)
    before = "".join("│" if column in grid.lanes else " " for column in range(_TIME, start))
    after = "".join("│" if column in grid.lanes else " " for column in range(end, grid.lanes[2] + 1))
    return Text(before, style="dim").append(drawn, style=style).append(after, style="dim")
