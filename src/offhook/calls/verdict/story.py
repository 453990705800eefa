"""
A call's story: what `GET /v1/realtime/calls/{id}` and its timeline say, made safe to ask questions of.

Any JSON can be a story. What is not as it should be is taken as absent, so that the rules need not look twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

__all__ = ["Entry", "Story", "listed", "mapping", "number", "seconds", "text"]

_CSEQ: Final = re.compile(r"^CSeq[ \t]*:[ \t]*\d{1,10}[ \t]+([A-Z]{1,20})", re.I | re.M)
_STATUS: Final = re.compile(r"SIP/2\.0 ([1-6]\d\d)\b")


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def number(value: object) -> float | None:
    """Return a finite number, or `None`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def seconds(value: float) -> str:
    """Return a length of time for a sentence: `0.4 s`, `9.8 s`, `32 s`."""
    return f"{value:.1f} s".replace(".0 s", " s") if value >= 20 else f"{value:.1f} s"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a timeline."""

    number: int
    at: float
    "Seconds since the call began."
    kind: str
    title: str
    details: Mapping[str, Any]

    def text(self, name: str) -> str:
        return text(self.details.get(name))

    def value(self, name: str) -> float | None:
        return number(self.details.get(name))

    @property
    def message(self) -> str:
        """A SIP entry's whole message, or what is kept of it."""
        return self.text("message") or self.title

    @property
    def sip_status(self) -> int:
        """The status of a SIP response; 0 of anything else."""
        found = _STATUS.match(self.title) if self.kind == "sip" else None
        return int(found[1]) if found else 0

    @property
    def method(self) -> str:
        """The method of a SIP request, or of the request that a response answers."""
        if self.kind != "sip":
            return ""
        if not self.title.startswith("SIP/2.0 "):
            return self.title.partition(" ")[0]
        found = _CSEQ.search(self.message)
        return found[1].upper() if found else ""

    @property
    def came_in(self) -> bool:
        return self.text("direction") == "in"


@dataclass(frozen=True)
class Story:
    """A call's object and its timeline."""

    call: Mapping[str, Any]
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, described: object, timeline: object) -> Story:
        """Read the two REST bodies. Raises nothing, whatever they are."""
        entries = [
            Entry(
                int(number(found.get("number")) or 0) if "number" in found else position,
                max(0.0, (number(found.get("ms")) or 0.0) / 1000),
                text(found.get("kind")),
                text(found.get("title")),
                found,
            )
            for position, found in enumerate(map(mapping, listed(mapping(timeline).get("data"))))
        ]
        entries.sort(key=lambda entry: entry.at)
        return cls(mapping(described), tuple(entries))

    def of_kind(self, *kinds: str) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.kind in kinds)

    def first(self, kind: str, *beginnings: str) -> Entry | None:
        """Return the first entry of a kind whose title begins so."""
        return next((e for e in self.of_kind(kind) if e.title.startswith(beginnings or "")), None)

    def last(self, kind: str, *beginnings: str) -> Entry | None:
        found = [entry for entry in self.of_kind(kind) if entry.title.startswith(beginnings or "")]
        return found[-1] if found else None

    def sip(self, method: str, *, incoming: bool, status: int = 0) -> Entry | None:
        """Return the first SIP message of a method and direction: the request, or a response with that status."""
        return next(
            (
                entry
                for entry in self.of_kind("sip")
                if entry.came_in is incoming and entry.sip_status == status and entry.method == method
            ),
            None,
        )

    def requests(self, *verbs: str) -> list[Entry]:
        """Return what the app asked of the call by REST."""
        return [entry for entry in self.of_kind("rest") if entry.text("verb") in verbs]

    # How it ended.

    @cached_property
    def end(self) -> Mapping[str, Any]:
        """The call's `termination`; empty while it lives."""
        return mapping(self.call.get("termination"))

    @property
    def reason(self) -> str:
        return text(self.end.get("reason"))

    @property
    def cause(self) -> str:
        return text(self.end.get("cause"))

    @property
    def fault(self) -> str:
        """What made it impossible, or ended it, as a fact; empty where its end was none, or nobody kept it."""
        return self.ending.text("fault") if self.ending is not None else ""

    @property
    def status(self) -> int:
        """The final status of an INVITE that was refused; 0 for none."""
        return int(number(self.end.get("sip_status")) or 0)

    @property
    def is_hosted(self) -> bool:
        return self.call.get("hosted") is True

    @property
    def is_over(self) -> bool:
        return bool(self.reason) or text(self.call.get("state")) == "ended"

    @cached_property
    def ending(self) -> Entry | None:
        """The entry that says how it ended."""
        return self.last("call", "ended: ")

    @cached_property
    def ended_at(self) -> float:
        """When it ended, or the time of the last that is known of one that lives."""
        if self.ending is not None:
            return self.ending.at
        return self.entries[-1].at if self.entries else 0.0

    # What came before.

    @cached_property
    def invite(self) -> Entry | None:
        return self.sip("INVITE", incoming=True)

    @cached_property
    def cancel(self) -> Entry | None:
        return self.sip("CANCEL", incoming=True)

    @cached_property
    def accepted(self) -> Entry | None:
        return self.first("call", "accepted")

    @cached_property
    def answer(self) -> Entry | None:
        """Our 200 to the INVITE."""
        return self.sip("INVITE", incoming=False, status=200)

    @property
    def was_answered(self) -> bool:
        return self.answer is not None or number(self.call.get("answered_at")) is not None

    @property
    def talked_s(self) -> float:
        """How long it lasted from the answer on; 0 when that is not known."""
        return max(0.0, self.ended_at - self.answer.at) if self.answer is not None else 0.0

    @property
    def engine(self) -> str:
        """What kind of engine spoke: `local`, `scripted`, `upstream`; empty before the accept."""
        return text(mapping(self.call.get("engine")).get("kind"))
