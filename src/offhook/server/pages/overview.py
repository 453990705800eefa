"""`/`: whether the node takes calls, and the calls that live."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ..services import ServerServices
from .logins import Login
from .shell import NavItem, Shell

__all__ = ["Overview"]


class Overview:
    def __init__(self, services: ServerServices) -> None:
        self._services = services

    def add_to(self, shell: Shell) -> None:
        self._shell = shell
        shell.nav.append(NavItem("/", "Overview"))
        shell.page("/", self.show)

    async def show(self, request: Request, login: Login) -> Response:
        return await self._shell.render(
            request,
            login,
            "overview.html",
            not_ready=list(self._services.not_ready()),
            details=self._services.details(),
        )
