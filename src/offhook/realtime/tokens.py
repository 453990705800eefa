"""
How many tokens a text is, where no model's own count is at hand.

An estimate: four bytes of UTF-8 to a token, which is about right for English and generous for most others. It bounds
what goes to a language model (row G16) and what an engine without one may say (row G15).
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Allowance", "count_tokens"]

BYTES_PER_TOKEN = 4


def count_tokens(text: str) -> int:
    size = len(text) if text.isascii() else len(text.encode())
    return -(-size // BYTES_PER_TOKEN)


class Allowance:
    """What one response may still say. `spent` once something of it did not fit."""

    def __init__(self, tokens: int | Literal["inf"]) -> None:
        self._left = float(tokens)
        self.used = 0
        self.spent = False

    def cut(self, text: str) -> str:
        """Return the text, or as many of its whole words as still fit."""
        if self.holds(text):
            return text
        room = int(self._left) * BYTES_PER_TOKEN
        begun = text.encode()[: room + 1].decode(errors="ignore")
        kept = begun.rstrip() if begun[-1:].isspace() else begun[: max(begun.rfind(" "), 0)].rstrip()
        self._take(count_tokens(kept))
        return kept

    def holds(self, text: str) -> bool:
        """Take the whole text if it fits, else nothing; return whether it does."""
        tokens = count_tokens(text)
        if self.spent or tokens > self._left:
            self.spent = True
            return False
        self._take(tokens)
        return True

    def _take(self, tokens: int) -> None:
        self._left -= tokens
        self.used += tokens
