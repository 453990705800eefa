"""`/`: whether the node takes calls, the calls that live, and the latest that are over."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.past import CallQuery

from ..call_directory import CallDirectory
from ..services import ServerServices
from ..slowly import slowly
from .call_view import CallLine, call_line
from .logins import Login
from .shell import NavItem, Shell

__all__ = ["Overview"]

SHOWN_LIVE = 50
SHOWN_PAST = 10


class Overview:
    def __init__(self, shell: Shell, services: ServerServices, directory: CallDirectory) -> None:
        self._shell = shell
        self._services = services
        self._directory = directory
        shell.nav.append(NavItem("/", "Overview"))
        shell.page("/", self.show)

    async def show(self, request: Request, login: Login) -> Response:
        now = self._services.clock.wall()
        live, count, ringing = await self._live(now)
        past = await self._directory.page(CallQuery(state="ended"), after=None, limit=SHOWN_PAST)
        return await self._shell.render(
            request,
            login,
            "overview.html",
            not_ready=list(self._services.not_ready()),
            details=self._services.details(),
            live=live,
            live_count=count,
            ringing=ringing,
            past=[call_line(call, now) for call in past.calls],
            incomplete=past.incomplete,
        )

    async def _live(self, now: float) -> tuple[list[CallLine], int, int]:
        """Return the latest calls that live, how many there are, and how many of them nobody has answered."""
        calls = [call for call in self._services.calls.list(None) if call.state != "ended"]
        ringing = sum(call.state in ("ringing", "accepted") for call in calls)
        lines = [call_line(call.describe(), now) async for call in slowly(calls[:SHOWN_LIVE])]
        return lines, len(calls), ringing
