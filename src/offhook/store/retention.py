"""Forgets what has been kept for long enough, little by little."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection, Select, delete, exists, select
from sqlalchemy.exc import SQLAlchemyError

from offhook.clock import Clock

from . import schema
from .database import Database
from .writer import NotStoredError

__all__ = ["Retention"]

log = logging.getLogger("offhook.store")

DAY_S: Final = 86_400.0
LOOK_EVERY_S: Final = 3_600.0
EVENTS: Final = 50
"In one transaction. Of calls it is one: it may have 20,000 entries, and events on their way wait for it."
PAUSE_S: Final = 0.02
"Between two transactions, so that others have their turns."

Find = Callable[[float], Select[tuple[str]]]
Remove = Callable[[Connection, Sequence[str]], None]


class Retention:
    """
    Deletes ended calls with all that is theirs, and finished webhook events, `keep_days` after they were over.

    A call that has a recording stays as long as that does.
    """

    def __init__(self, database: Database, keep_days: float, clock: Clock) -> None:
        self._database = database
        self._keep_s = keep_days * DAY_S
        self._clock = clock
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look every hour from now on."""
        self._looking = asyncio.create_task(self._look())

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    async def sweep(self) -> tuple[int, int]:
        """Delete what is too old now. Return how many calls and events that were."""
        before = self._clock.wall() - self._keep_s
        calls = await self._sweep(_old_calls, _remove_calls, before)
        return calls, await self._sweep(_old_events, _remove_events, before)

    async def _sweep(self, find: Find, remove: Remove, before: float) -> int:
        removed = 0
        while old := await self._database.read(lambda c: c.execute(find(before)).scalars().all()):
            await self._database.write(lambda connection, old=old: remove(connection, old))  # type: ignore[misc]
            removed += len(old)
            await asyncio.sleep(PAUSE_S)
        return removed

    async def _look(self) -> None:
        while True:
            try:
                calls, events = await self.sweep()
            except (SQLAlchemyError, NotStoredError) as error:
                log.warning(
                    "what is too old could not be deleted, and will be tried again: %s", error,
                    extra={"event": "store.retention.failed"},
                )  # fmt: skip
            else:
                if calls or events:
                    log.info(
                        "deleted %d calls and %d webhook events that were kept for long enough", calls, events,
                        extra={"event": "store.retention", "calls": calls, "events": events},
                    )  # fmt: skip
            await asyncio.sleep(LOOK_EVERY_S)


def _old_calls(before: float) -> Select[tuple[str]]:
    calls, recordings = schema.calls.c, schema.recordings.c
    recorded = exists().where(recordings.call_id == calls.id)
    return select(calls.id).where(calls.ended_at < before, ~recorded).order_by(calls.ended_at).limit(1)


def _remove_calls(connection: Connection, old: Sequence[str]) -> None:
    for table in (schema.timeline_pieces, schema.turns, schema.refers):
        connection.execute(delete(table).where(table.c.call_id.in_(old)))
    connection.execute(delete(schema.calls).where(schema.calls.c.id.in_(old)))


def _old_events(before: float) -> Select[tuple[str]]:
    events, deliveries = schema.events.c, schema.deliveries.c
    waiting = exists().where(deliveries.event_id == events.id, deliveries.finished_at.is_(None))
    return (
        select(events.id)
        .where(events.created_at < before, ~waiting)
        .order_by(events.created_at)
        .limit(EVENTS)
    )


def _remove_events(connection: Connection, old: Sequence[str]) -> None:
    deliveries, attempts = schema.deliveries, schema.attempts
    theirs = select(deliveries.c.id).where(deliveries.c.event_id.in_(old))
    connection.execute(delete(attempts).where(attempts.c.delivery_id.in_(theirs)))
    connection.execute(delete(deliveries).where(deliveries.c.event_id.in_(old)))
    connection.execute(delete(schema.events).where(schema.events.c.id.in_(old)))
