"""How a node's calls went over time, in periods of the same width: what the store counts, for the operator."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

__all__ = ["CallPeriod", "CallStatistics", "Spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Of many values, the middle one, and the one that nineteen of twenty are no worse than."""

    median: float
    worst: float


@dataclass(frozen=True, slots=True)
class CallPeriod:
    """The calls that began in one period. Times are Unix seconds."""

    begins_at: float
    calls: int = 0
    "All that began, live ones too."
    answered: int = 0
    unanswered: int = 0
    "Neither answered nor ended by a fault: refused, given up, or still ringing."
    failed: int = 0
    "Ended by a fault of this node, of the app or of an upstream, answered or not."
    peak: int = 0
    "The most that lived at once, those of earlier periods included."
    setup_s: Spread | None = None
    "From the INVITE to the answer."
    mos: Spread | None = None
    "How the callers were heard, 1 to 4.5."
    loss_in_percent: float | None = None
    "Of the packets that were due from callers."
    loss_out_percent: float | None = None
    "Of ours, as far as peers have reported."

    def to_api(self) -> dict[str, Any]:
        return asdict(self)


class CallStatistics(Protocol):
    """Raises `PastUnavailable`."""

    async def periods(self, since: float, width_s: float, count: int) -> list[CallPeriod]:
        """Return so many periods of all projects, the first of which begins at `since`."""
