"""Webhook events and their deliveries on the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, or_, select

from offhook.tenants import AttemptRecord, DeliveryQuery, DeliveryRecord, EventRecord

from .database import Database, insert_once, upsert
from .schema import attempts, deliveries, events
from .writer import NotStoredError

__all__ = ["StoreOutbox"]

_DELIVERY = [deliveries.c[item.name] for item in fields(DeliveryRecord)]
_EVENT = [events.c[item.name].label(f"of_{item.name}") for item in fields(EventRecord)]
_EVENT_SHOWN = [column for column in _EVENT if column.name != "of_body"]


class StoreOutbox:
    """The `Outbox` and the `Deliveries` of one node."""

    def __init__(self, database: Database, node: str) -> None:
        self._database = database
        self._node = node

    def add(self, event: EventRecord, waiting: Sequence[DeliveryRecord]) -> Awaitable[bool]:
        event_row, rows = asdict(event), [self._row(delivery) for delivery in waiting]

        def work(connection: Connection) -> None:
            insert_once(connection, events, event_row)
            for row in rows:
                insert_once(connection, deliveries, row)

        written = asyncio.get_running_loop().create_future()
        self._database.writer.put(work, written=written)
        return _committed(written)

    def save(
        self, delivery: DeliveryRecord, attempt: AttemptRecord | None, event: EventRecord | None = None
    ) -> None:
        row = self._row(delivery)

        def work(connection: Connection) -> None:
            if event is not None:
                insert_once(connection, events, asdict(event))
            upsert(connection, deliveries, row)
            if attempt is not None:
                upsert(connection, attempts, {"delivery_id": delivery.id, **asdict(attempt)})

        self._database.writer.put(work)

    async def unfinished(self) -> list[tuple[str, str, str, float]]:
        found = deliveries.c
        query = select(found.project_id, found.endpoint_id, found.id, found.due_at).where(
            found.node == self._node, found.state == "waiting"
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [(row.project_id, row.endpoint_id, row.id, row.due_at or 0.0) for row in rows]

    async def waiting(self, ids: Sequence[str]) -> list[tuple[EventRecord, DeliveryRecord]]:
        query = (
            _joined(_EVENT)
            .where(deliveries.c.id.in_(ids), deliveries.c.state == "waiting")
            .order_by(deliveries.c.created_at)
        )

        def read(connection: Connection) -> list[tuple[EventRecord, DeliveryRecord]]:
            return [(_event(row), _delivery(row)) for row in connection.execute(query)]

        await self._database.write(lambda connection: None)  # after all that was put before
        return await self._database.read(read)

    async def search(self, query: DeliveryQuery) -> list[tuple[EventRecord, DeliveryRecord]] | None:
        wanted = {
            deliveries.c.project_id: query.project_id,
            deliveries.c.endpoint_id: query.endpoint_id,
            deliveries.c.state: query.state,
            events.c.call_id: query.call_id,
            events.c.type: query.event_type,
        }
        found = _joined(_EVENT_SHOWN).where(
            *(column == value for column, value in wanted.items() if value is not None)
        )
        found = found.order_by(deliveries.c.created_at.desc(), deliveries.c.id.desc()).limit(query.limit)

        def read(connection: Connection) -> list[tuple[EventRecord, DeliveryRecord]] | None:
            page = found
            if query.after is not None:
                # Of any project: an id says nothing but when.
                at = connection.execute(
                    select(deliveries.c.created_at).where(deliveries.c.id == query.after)
                ).scalar_one_or_none()
                if at is None:
                    return None
                earlier = deliveries.c.created_at < at
                page = page.where(
                    or_(earlier, and_(deliveries.c.created_at == at, deliveries.c.id < query.after))
                )
            return [(_event(row), _delivery(row)) for row in connection.execute(page)]

        return await self._database.read_kept(read)

    async def find(
        self, project_id: str | None, delivery_id: str
    ) -> tuple[EventRecord, DeliveryRecord, list[AttemptRecord]] | None:
        query = _joined(_EVENT).where(deliveries.c.id == delivery_id)
        if project_id is not None:
            query = query.where(deliveries.c.project_id == project_id)
        columns = [attempts.c[item.name] for item in fields(AttemptRecord)]
        tried = select(*columns).where(attempts.c.delivery_id == delivery_id).order_by(attempts.c.number)

        def read(
            connection: Connection,
        ) -> tuple[EventRecord, DeliveryRecord, list[AttemptRecord]] | None:
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            made = [AttemptRecord(**one._mapping) for one in connection.execute(tried)]
            return _event(row), _delivery(row), made

        return await self._database.read_kept(read)

    def _row(self, delivery: DeliveryRecord) -> dict[str, Any]:
        return {**asdict(delivery), "node": self._node}


async def _committed(written: asyncio.Future[None]) -> bool:
    try:
        await written
    except NotStoredError:
        return False
    return True


def _joined(event: Sequence[Any]) -> Select[Any]:
    return select(*_DELIVERY, *event).join_from(deliveries, events, deliveries.c.event_id == events.c.id)


def _delivery(row: Row[Any]) -> DeliveryRecord:
    found = row._mapping
    return DeliveryRecord(**{item.name: found[item.name] for item in fields(DeliveryRecord)})


def _event(row: Row[Any]) -> EventRecord:
    found = row._mapping
    return EventRecord(**{item.name: found.get(f"of_{item.name}", b"") for item in fields(EventRecord)})
