"""A call that an app has accepted, with a sideband on it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from .developer import DeveloperApp
from .phone import Phone, PhoneCall
from .sideband import Sideband

__all__ = ["Attended", "attended"]


@dataclass(frozen=True)
class Attended:
    call: PhoneCall
    call_id: str
    sideband: Sideband


@contextlib.asynccontextmanager
async def attended(
    app: DeveloperApp, phone: Phone, *, events: str = "", **session: Any
) -> AsyncIterator[Attended]:
    """Call the app's project; the app accepts with this session, and its sideband has `session.created`."""
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id, **session)
    await call.answered()
    async with Sideband(app.client, call_id, events=events) as sideband:
        await sideband.wait_for("session.created")
        yield Attended(call, call_id, sideband)
