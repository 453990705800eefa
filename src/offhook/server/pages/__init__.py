"""The pages at `/`: what an operator looks at. They need no script, and are nicer with it."""

from __future__ import annotations

from fastapi import FastAPI

from ..call_directory import CallDirectory
from ..services import ServerServices
from .calls import Calls
from .capacity import Capacity
from .deliveries import Deliveries
from .overview import Overview
from .projects import Projects
from .refused import Refused
from .shell import Shell
from .webhooks import Webhooks

__all__ = ["add_pages"]


def add_pages(app: FastAPI, services: ServerServices, directory: CallDirectory) -> None:
    """Put the pages into the app; none where there is no admin key to open them with."""
    if services.admin_key is None:
        return
    shell = Shell(app, services.admin_key, services.clock)
    Overview(shell, services, directory)
    Calls(shell, services, directory)
    Deliveries(shell, services)
    Webhooks(shell, services)
    Projects(shell, services)
    Refused(shell, services)
    Capacity(shell, services)
