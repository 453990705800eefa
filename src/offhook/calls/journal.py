"""What is kept of calls when they are over, as the rooms above write it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .timeline import TimelineEntry

__all__ = ["CallTimes", "Journal", "NoJournal"]


@dataclass(frozen=True, slots=True)
class CallTimes:
    """The moments of a call in Unix seconds, finer than the API shows them."""

    created_at: float
    answered_at: float | None
    ended_at: float | None


class Journal(Protocol):
    """
    Takes a call's story as it happens. Never blocks and never raises: a call must not feel whether it is kept.

    Calls are named by their id. Times are Unix seconds. What is handed over may be changed afterwards.
    """

    def save(self, described: Mapping[str, Any], times: CallTimes) -> None:
        """Keep what `Call.describe` says now; it was asked again because something of it has changed."""

    def refer(self, described: Mapping[str, Any]) -> None:
        """Keep one transfer, as `GET .../refers/{n}` shows it now."""

    def entry(self, call_id: str, number: int, at: float, entry: TimelineEntry) -> None:
        """Keep one entry of a call's timeline; `number` counts from 0."""

    def dialog(self, call_id: str, snapshot: Mapping[str, Any] | None) -> None:
        """Keep what it takes to hang up after a crash (decision 12 of the design); `None`: nothing is left to."""


class NoJournal:
    """Keeps nothing."""

    def save(self, described: Mapping[str, Any], times: CallTimes) -> None: ...

    def refer(self, described: Mapping[str, Any]) -> None: ...

    def entry(self, call_id: str, number: int, at: float, entry: TimelineEntry) -> None: ...

    def dialog(self, call_id: str, snapshot: Mapping[str, Any] | None) -> None: ...
