"""The pages at `/`: what an operator looks at. They need no script, and are nicer with it."""

from __future__ import annotations

from fastapi import FastAPI

from ..services import ServerServices
from .overview import Overview
from .shell import Shell

__all__ = ["add_pages"]


def add_pages(app: FastAPI, services: ServerServices) -> None:
    """Put the pages into the app; none where there is no admin key to open them with."""
    if services.admin_key is None:
        return
    shell = Shell(app, services.admin_key, services.clock)
    Overview(services).add_to(shell)
