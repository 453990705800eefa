"""How much of an event or an item there is to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["weigh"]


def weigh(value: Any) -> int:
    """Return the characters of all words, sound and pictures within. Takes what `can_be_relayed`, no deeper."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(weigh, value.values()))
    if isinstance(value, list):
        return sum(map(weigh, value))
    return 0
