"""`/refused`: who was turned away before a call was made of it, and the lines that would admit it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ..services import ServerServices
from .logins import Login
from .shell import NavItem, Shell

__all__ = ["Refused"]

SHOWN = 200
_WHY = {
    "not_listed": "No trunk lists this address",
    "no_credentials": "It sent no password, and a trunk wants one",
    "wrong_credentials": "Its password is wrong",
    "unknown_project": "It called what no project has",
    "too_many_requests": "It sent too many requests",
    "too_many_connections": "It opened too many connections",
}


class Refused:
    def __init__(self, shell: Shell, services: ServerServices) -> None:
        self._shell = shell
        self._calls = services.calls
        shell.nav.append(NavItem("/refused", "Refused"))
        shell.page("/refused", self.show)

    async def show(self, request: Request, login: Login) -> Response:
        found = self._calls.refused_sources(None)
        return await self._shell.render(
            request,
            login,
            "refused.html",
            sources=[source.describe() for source in found[:SHOWN]],
            count=len(found),
            why=_WHY,
        )
