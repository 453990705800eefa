"""Whisper's vocabulary: token numbers to text and back (byte-level BPE, as in GPT-2)."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Vocabulary"]

_WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def _bytes_as_text() -> dict[int, str]:
    """Return the printable character that stands for each byte in the vocabulary file."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in plain}
    others = (byte for byte in range(256) if byte not in table)
    return table | {byte: chr(256 + i) for i, byte in enumerate(others)}


_TO_TEXT = _bytes_as_text()
_TO_BYTE = {text: byte for byte, text in _TO_TEXT.items()}


class Vocabulary:
    """A model's tokens, from the `vocabulary.txt` or `.json` beside it."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._numbers = {token: number for number, token in enumerate(tokens)}
        self._end = self._numbers["<|endoftext|>"]

    @classmethod
    def load(cls, directory: Path) -> Vocabulary:
        if (path := directory / "vocabulary.json").is_file():
            return cls(json.loads(path.read_text(encoding="utf-8")))
        text = (directory / "vocabulary.txt").read_text(encoding="utf-8")
        return cls(text.removesuffix("\n").split("\n"))

    def number(self, token: str) -> int:
        """Return a special token's number. Raises `KeyError`."""
        return self._numbers[token]

    def __contains__(self, token: str) -> bool:
        return token in self._numbers

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the text of the tokens; special ones are left out."""
        text = "".join(self._tokens[number] for number in numbers if number < self._end)
        return bytes(_TO_BYTE[char] for char in text).decode("utf-8", "replace")

    def encode(self, text: str) -> list[int]:
        """Return text as tokens. Pairs are joined by rising number: the order they were learnt in."""
        numbers: list[int] = []
        for word in _WORDS.findall(text):
            parts = [_TO_TEXT[byte] for byte in word.encode()]
            while len(parts) > 1:
                joined = [self._numbers.get(a + b, self._end) for a, b in itertools.pairwise(parts)]
                best = min(joined)
                if best >= self._end:
                    break
                at = joined.index(best)
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            numbers += [self._numbers[part] for part in parts]
        return numbers
