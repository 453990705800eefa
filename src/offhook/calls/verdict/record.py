"""What is said of a call, and what the rules find before one of it becomes the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from .catalogue import CATALOGUE, Blame
from .story import Entry

__all__ = ["Finding", "Verdict", "Weight", "find"]


class Weight(IntEnum):
    """How much a finding explains."""

    NOTE = 0
    "True, and of no harm: told beside the verdict only."
    ENDING = 1
    "How a call ended that nothing was wrong with."
    HARM = 2
    "The call went on, but not well."
    CAUSE = 3
    "Why it could not be, or had to end."


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule is sure of."""

    code: str
    weight: Weight
    sentence: str
    evidence: tuple[int, ...]
    blame: Blame
    remedy: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What is to be said of a call. `code` is one of the catalogue's.

    `evidence` are the numbers of timeline entries that show it. `also` is what else was found, itself without `also`.
    """

    code: str
    blame: Blame
    "Whose affair it is: `nobody` where all went as it should, `unknown` where the story does not say."
    sentence: str
    remedy: str
    "Empty where there is nothing to do."
    evidence: tuple[int, ...] = ()
    also: tuple[Verdict, ...] = ()

    def to_api(self) -> dict[str, Any]:
        """Return the fields of `GET /v1/realtime/calls/{id}/verdict`."""
        return {
            "code": self.code,
            "blame": self.blame,
            "sentence": self.sentence,
            "remedy": self.remedy,
            "evidence": list(self.evidence),
            "also": [other.to_api() for other in self.also],
        }


def find(
    code: str,
    weight: Weight,
    sentence: str,
    *evidence: Entry | None,
    blame: Blame | None = None,
    remedy: str | None = None,
) -> Finding:
    """Return a finding with the blame and remedy that the catalogue has for its code, unless others are given."""
    kind = CATALOGUE[code]
    numbers = dict.fromkeys(entry.number for entry in evidence if entry is not None)
    return Finding(
        code,
        weight,
        sentence,
        tuple(numbers),
        kind.blame if blame is None else blame,
        kind.remedy if remedy is None else remedy,
    )
