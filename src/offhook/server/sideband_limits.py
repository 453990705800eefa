"""How much one sideband may cost the node."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from offhook.calls.errors import CallError

__all__ = ["SidebandLimits", "SidebandPlaces"]


@dataclass(frozen=True, slots=True)
class SidebandLimits:
    per_call: int = 32
    "Sidebands attached to one call at a time."
    queued_frames: int = 4096
    queued_bytes: int = 16 * 1024 * 1024
    "A reader that falls further behind than either is dropped; the call goes on."
    drain_s: float = 10.0
    "How long the last events may take after the call's end."


class SidebandPlaces:
    """How many sidebands each call has; a call is whatever its caller names it by."""

    def __init__(self, limits: SidebandLimits) -> None:
        self._limits = limits
        self._taken: Counter[tuple[str, ...]] = Counter()

    @contextlib.contextmanager
    def one_at(self, *call: str) -> Iterator[None]:
        """Hold one of a call's places. Raises `CallError` 429 when none is left."""
        if self._taken[call] >= self._limits.per_call:
            raise CallError(
                429,
                f"{self._limits.per_call} sidebands are attached to this call already.",
                code="rate_limit_exceeded",
                type="rate_limit_error",
            )
        self._taken[call] += 1
        try:
            yield
        finally:
            self._taken[call] -= 1
            if not self._taken[call]:
                del self._taken[call]
