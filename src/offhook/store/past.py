"""Past calls, read from the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from offhook.calls.past import CallQuery, CallRow, Place
from offhook.calls.timeline import TimelineEntry, timeline_body

from . import schema
from .database import Database
from .json_text import plain

__all__ = ["StorePastCalls"]

_SHOWN = (schema.calls.c.id, schema.calls.c.created_at, schema.calls.c.described)


class StorePastCalls:
    """`PastCalls` of the tables that `StoreJournal` fills."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, project_id: str | None, call_id: str) -> CallRow | None:
        table = schema.calls
        query = select(*_SHOWN).where(table.c.id == call_id)
        if project_id is not None:
            query = query.where(table.c.project_id == project_id)
        found = await self._database.read_kept(lambda connection: connection.execute(query).one_or_none())
        return _row(found) if found is not None else None

    async def timeline(self, call_id: str) -> dict[str, Any]:
        pieces = schema.timeline_pieces
        query = select(pieces.c.entries).where(pieces.c.call_id == call_id)

        def read(connection: Connection) -> dict[str, Any]:
            known = [entry for piece in connection.execute(query).scalars() for entry in piece]
            entries = [
                TimelineEntry(at, kind, title, details, number) for number, at, kind, title, details in known
            ]
            entries.sort(key=lambda entry: (entry.at, entry.number))
            # They were numbered as they came: a gap is what could not be written.
            dropped = max((entry.number for entry in entries), default=-1) + 1 - len(entries)
            return timeline_body(call_id, entries, dropped)

        return await self._database.read_kept(read)

    async def refers(self, call_id: str) -> list[dict[str, Any]]:
        table = schema.refers
        query = select(table.c.described).where(table.c.call_id == call_id).order_by(table.c.number)
        return await self._database.read_kept(lambda connection: list(connection.execute(query).scalars()))

    async def list(self, query: CallQuery, *, after: Place | None, limit: int) -> list[CallRow]:
        table = schema.calls
        chosen = (
            select(*_SHOWN)
            .where(*_conditions(query, after))
            .order_by(table.c.created_at.desc(), table.c.id.desc())
            .limit(limit)
        )
        return await self._database.read_kept(lambda c: [_row(row) for row in c.execute(chosen)])


def _row(row: Any) -> CallRow:
    return CallRow((row.created_at, row.id), row.described)


def _conditions(query: CallQuery, after: Place | None) -> list[ColumnElement[bool]]:
    table = schema.calls.c
    conditions = [
        column == plain(wanted)
        for column, wanted in (
            (table.project_id, query.project_id),
            (table.state, query.state),
            (table.sip_call_id, query.sip_call_id),
            (table.carrier_call_id, query.carrier_call_id),
        )
        if wanted is not None
    ]
    if query.number is not None:
        named = (table.from_user, table.to_user, table.request_uri)
        conditions.append(or_(*(column.icontains(plain(query.number), autoescape=True) for column in named)))
    if query.created_after is not None:
        conditions.append(table.created_at > query.created_after)
    if query.created_before is not None:
        conditions.append(table.created_at < query.created_before)
    if after is not None:
        at, call_id = after
        conditions.append(or_(table.created_at < at, and_(table.created_at == at, table.id < call_id)))
    return conditions
