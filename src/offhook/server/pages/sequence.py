"""A call's ladder as a sequence diagram: where each row stands, what it is called. The template draws it as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from offhook.calls.ladder import HOSTED_NAMES, NAMES, Arrow, Lane, Note, Row, numbered

from .text import shown

__all__ = ["LANES", "ROW_PX", "Sequence", "Step", "number_of", "sequence"]

LANES = (12.0, 54.0, 96.0)
"Where caller, Offhook and app stand, in percent of the width; left of them is the time."
ROW_PX = 30
HEAD_PX = 34
FIRST, LAST = 300, 100
"How many rows of a long call are drawn when nobody asks for all."
_QUIET = ("route", "response")
"Kinds that repeat, in the words of this node, what messages or turns beside them show."


@dataclass(frozen=True, slots=True)
class Step:
    """One row. Percentages are of the width, `y` is in pixels; an arrow goes from `x1` to `x2`, a note has no `x2`."""

    number: int
    "The entry's number in the timeline."
    at: float
    y: int
    style: str
    label: str
    name: str
    "What a screen reader says."
    x1: float
    x2: float | None
    wide: bool
    is_message: bool
    is_evidence: bool

    @property
    def is_long(self) -> bool:
        """Whether a small screen cannot show all of the label, and should show its beginning."""
        return len(self.label) > 22

    @property
    def left(self) -> float:
        return self.x1 if self.x2 is None else min(self.x1, self.x2)

    @property
    def width(self) -> float:
        # A note beside a lane is as wide as all of them: a small screen has it begin at the first one.
        return 99.5 - LANES[0] - 1.5 if self.x2 is None else abs(self.x2 - self.x1)


@dataclass(slots=True)
class Sequence:
    names: tuple[str, str, str]
    steps: list[Step] = field(default_factory=list)
    left_out: int = 0
    "Rows between the first and the last that are not drawn."
    gap_y: int = 0
    quiet: int = 0
    "Entries of routing and inner states that are not drawn."

    @property
    def height(self) -> int:
        rows = len(self.steps) + bool(self.left_out)
        return HEAD_PX + rows * ROW_PX + 10


def sequence(
    timeline: Mapping[str, Any],
    *,
    hosted: bool = False,
    detailed: bool = False,
    whole: bool = False,
    evidence: Iterable[int] = (),
) -> Sequence:
    """Lay out a body of `GET /v1/realtime/calls/{id}/timeline`; `detailed` has routing and inner states too."""
    names, proof = HOSTED_NAMES if hosted else NAMES, frozenset(evidence)
    made = Sequence((names[0], names[1], names[2]))
    entries = timeline.get("data", ())
    rows: list[tuple[Mapping[str, Any], int, Row]] = []
    for place, found in numbered(timeline):
        if not detailed and _is_quiet(entries[place]):
            made.quiet += 1
            continue
        rows += [(entries[place], number_of(entries[place], place), row) for row in found]
    drawn = rows
    if not whole and len(rows) > FIRST + LAST:
        made.left_out = len(rows) - FIRST - LAST
        made.gap_y = HEAD_PX + FIRST * ROW_PX
        drawn = [*rows[:FIRST], *rows[-LAST:]]
    for place, (entry, number, row) in enumerate(drawn):
        y = HEAD_PX + (place + (bool(made.left_out) and place >= FIRST)) * ROW_PX
        made.steps.append(_step(number, row, y, made.names, "message" in entry, number in proof))
    return made


def number_of(entry: Mapping[str, Any], place: int) -> int:
    """Return an entry's number, by which verdicts name it; entries of earlier versions are numbered by their place."""
    number = entry.get("number")
    return number if isinstance(number, int) else place


def _is_quiet(entry: Mapping[str, Any]) -> bool:
    kind = entry.get("kind")
    return kind in _QUIET or (kind == "call" and str(entry.get("title", "")).startswith("leg: "))


def _step(
    number: int, row: Row, y: int, names: tuple[str, str, str], is_message: bool, is_evidence: bool
) -> Step:
    when = f"{row.at:.3f} s"
    if isinstance(row, Arrow):
        label = shown(row.label, 160)
        name = f"{when}, {names[row.source]} to {names[row.target]}: {label}"
        x1, x2, wide = LANES[row.source], LANES[row.target], False
    else:
        assert isinstance(row, Note)
        label = shown(row.text, 400)
        name = f"{when}: {label}"
        x1, x2, wide = LANES[Lane.CALLER if row.wide else row.lane] + 1.5, None, row.wide
    return Step(number, row.at, y, row.style, label, name, x1, x2, wide, is_message, is_evidence)
