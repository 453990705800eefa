"""How the node's calls went over the last hours: what the admin API and the page of capacity show alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from offhook.calls.errors import CallError
from offhook.calls.past import PastUnavailable

from .errors import unreadable
from .services import ServerServices

__all__ = ["SPANS", "Span", "history"]


@dataclass(frozen=True, slots=True)
class Span:
    """How far back to look, and in how many periods."""

    hours: int
    width_s: int

    @property
    def count(self) -> int:
        return self.hours * 3600 // self.width_s


SPANS = {hours: Span(hours, width_s) for hours, width_s in ((1, 60), (6, 300), (24, 1200), (168, 7200))}


async def history(services: ServerServices, hours: int) -> dict[str, Any]:
    """Return the body of `GET /admin/api/capacity/history`. Raises `CallError`."""
    span = SPANS.get(hours)
    if span is None:
        raise CallError(
            400,
            f"Invalid value for 'hours': it is one of {', '.join(str(one) for one in SPANS)}.",
            code="invalid_value",
            param="hours",
        )
    if services.statistics is None:
        raise CallError(409, 'This node keeps nothing (server.database = "none").', code="no_database")
    # The last period has begun and is not over; all begin at whole multiples, so that they stay the same ones.
    latest = services.clock.wall() // span.width_s * span.width_s
    since = latest - span.width_s * (span.count - 1)
    try:
        periods = await services.statistics.periods(since, span.width_s, span.count)
    except PastUnavailable as error:
        raise unreadable(error) from None
    return {
        "object": "capacity.history",
        "hours": span.hours,
        "width_s": span.width_s,
        "data": [period.to_api() for period in periods],
    }
