"""Calls that are over, as far as they were kept: what is asked for, and what the rooms above get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["CallQuery", "CallRow", "NoPastCalls", "PastCalls", "PastUnavailable", "Place"]

Place = tuple[float, str]
"Where a call stands in lists, which go from the greatest to the least: when it began, and its id."


class PastUnavailable(Exception):  # noqa: N818 - it says what is the matter
    """What was kept cannot be read now. The message says why."""


@dataclass(frozen=True, slots=True)
class CallQuery:
    """Which calls; what is `None` does not matter. Times are Unix seconds."""

    project_id: str | None = None
    "`None`: of all projects, which is for the operator."
    state: str | None = None
    sip_call_id: str | None = None
    carrier_call_id: str | None = None
    number: str | None = None
    "Part of From, To or the Request-URI; the case of letters does not matter."
    created_after: float | None = None
    created_before: float | None = None


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call as it is listed."""

    place: Place
    described: dict[str, Any]
    "The body of `GET /v1/realtime/calls/{id}`."


class PastCalls(Protocol):
    """
    Reads of what a `Journal` wrote. All raise `PastUnavailable`.

    The calls that live are among them, a moment late: who has the call itself asks that.
    """

    async def find(self, project_id: str | None, call_id: str) -> CallRow | None:
        """Return a call of this project, or of any."""

    async def timeline(self, call_id: str) -> dict[str, Any]:
        """Return the body of `GET /v1/realtime/calls/{id}/timeline`; one without entries for an unknown call."""

    async def refers(self, call_id: str) -> list[dict[str, Any]]:
        """Return the call's transfers, from the first, as `GET .../refers` shows them."""

    async def list(self, query: CallQuery, *, after: Place | None, limit: int) -> list[CallRow]:
        """Return so many calls behind a place, newest first."""


class NoPastCalls:
    """Where nothing is kept."""

    async def find(self, project_id: str | None, call_id: str) -> CallRow | None:
        return None

    async def timeline(self, call_id: str) -> dict[str, Any]:
        raise PastUnavailable("nothing is kept of calls here")

    async def refers(self, call_id: str) -> list[dict[str, Any]]:
        raise PastUnavailable("nothing is kept of calls here")

    async def list(self, query: CallQuery, *, after: Place | None, limit: int) -> list[CallRow]:
        return []
