"""What a relayed call has cost, as the upstream counts it (row O19)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["RelayUsage"]


class RelayUsage:
    """The sum of every `response.done.usage`, field by field, whatever its fields are."""

    def __init__(self) -> None:
        self.responses = 0
        self._sum: dict[str, Any] = {}

    def add(self, usage: Mapping[str, Any]) -> None:
        if usage:
            self.responses += 1
            _add(self._sum, usage)

    @property
    def title(self) -> str:
        total = self._sum
        return f"{total.get('input_tokens', 0)} tokens in, {total.get('output_tokens', 0)} out"

    def to_api(self) -> dict[str, Any]:
        """Return a copy of the sum."""
        return _copy(self._sum)


def _add(total: dict[str, Any], usage: Mapping[str, Any]) -> None:
    """What was a number stays one, and what had fields has them."""
    for name, value in usage.items():
        before = total.get(name, {} if isinstance(value, Mapping) else 0)
        if isinstance(value, Mapping) and isinstance(before, dict):
            _add(total.setdefault(name, before), value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and not isinstance(before, dict):
            total[name] = before + value


def _copy(total: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copy(value) if isinstance(value, Mapping) else value for name, value in total.items()}
