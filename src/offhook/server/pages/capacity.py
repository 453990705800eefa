"""`/capacity`: how much of the node is taken now, and how its calls went over the last hours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError

from ..history import SPANS, history
from ..services import ServerServices
from .logins import Login
from .shell import NavItem, Shell

__all__ = ["Capacity"]

USUAL_HOURS = 6


class Capacity:
    def __init__(self, shell: Shell, services: ServerServices) -> None:
        self._shell = shell
        self._services = services
        shell.nav.append(NavItem("/capacity", "Capacity"))
        shell.page("/capacity", self.show)

    async def show(self, request: Request, login: Login) -> Response:
        asked = request.query_params.get("hours", "")
        hours = next((span for span in SPANS if str(span) == asked), USUAL_HOURS)
        missing, found = "", dict[str, Any]()
        try:
            found = await history(self._services, hours)
        except CallError as error:
            missing = error.message
        periods = found.get("data", [])
        return await self._shell.render(
            request,
            login,
            "capacity.html",
            now=_numbers(self._services.capacity()),
            not_ready=list(self._services.not_ready()),
            details=self._services.details(),
            hours=hours,
            spans=list(SPANS),
            width_s=found.get("width_s", 0),
            periods=periods,
            totals=_totals(periods),
            missing=missing,
        )


def _numbers(capacity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of the present, with nothing where something is not."""
    engines = capacity.get("engines") or []
    return {
        "calls": capacity.get("calls") or {},
        "ports": capacity.get("ports") or {},
        "engines": [engine for engine in engines if engine.get("free") is not None],
        "store": capacity.get("store") or {},
    }


def _totals(periods: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "calls": sum(period["calls"] for period in periods),
        "answered": sum(period["answered"] for period in periods),
        "failed": sum(period["failed"] for period in periods),
        "peak": max((period["peak"] for period in periods), default=0),
    }
