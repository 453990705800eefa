"""A text of many megabytes, such as a client's event with minutes of sound in it (API row S19)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["LONG", "LongText"]

LONG = 128 * 1024
"Characters of an event that is read in one go, in less than half a millisecond."
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class LongText:
    """A text in pieces of some 64 Ki characters: to join them would take milliseconds."""

    pieces: tuple[str, ...]
    length: int

    @classmethod
    def of(cls, pieces: Iterable[str]) -> LongText:
        kept = tuple(pieces)
        return cls(kept, sum(map(len, kept)))

    @classmethod
    def cut(cls, text: str) -> LongText:
        """Cut a text that is there in one piece."""
        return cls.of(text[at : at + _PIECE] for at in range(0, len(text), _PIECE))

    def __len__(self) -> int:
        return self.length

    def __str__(self) -> str:
        """Return the whole text; that takes milliseconds."""
        return "".join(self.pieces)
