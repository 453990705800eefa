"""Finds what a crash has left of this node's calls."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import orjson
from sqlalchemy import Connection, and_, func, or_, select

from offhook.calls.journal import CallTimes
from offhook.calls.orphans import Orphan

from . import schema
from .database import Database

__all__ = ["find_orphans"]


async def find_orphans(database: Database, node: str) -> list[Orphan]:
    """Return this node's calls that are open, or have somebody to hang up on. To be asked before it takes new ones."""
    return await database.read(lambda connection: _find(connection, node))


def _find(connection: Connection, node: str) -> list[Orphan]:
    calls, dialogs, pieces = schema.calls, schema.dialogs, schema.timeline_pieces
    snapshots = {
        row.call_id: row.snapshot
        for row in connection.execute(
            select(dialogs.c.call_id, dialogs.c.snapshot).where(dialogs.c.node == node)
        )
    }
    of_node = calls.c.node == node
    has_dialog = calls.c.id.in_(select(dialogs.c.call_id).where(dialogs.c.node == node))
    query = select(calls.c.id, calls.c.described, calls.c.created_at, calls.c.answered_at, calls.c.ended_at)
    open_calls = {
        row.id: row
        for row in connection.execute(query.where(of_node, or_(calls.c.state != "ended", has_dialog)))
    }
    newest = (
        select(pieces.c.call_id, func.max(pieces.c.first).label("first"))
        .where(pieces.c.call_id.in_([*open_calls, *snapshots]))
        .group_by(pieces.c.call_id)
        .subquery()
    )
    last = {
        row.call_id: max(number for number, *_ in row.entries)
        for row in connection.execute(
            select(pieces.c.call_id, pieces.c.entries).join(
                newest, and_(pieces.c.call_id == newest.c.call_id, pieces.c.first == newest.c.first)
            )
        )
    }
    refers: defaultdict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(
        select(schema.refers)
        .where(schema.refers.c.call_id.in_([*open_calls]))
        .order_by(schema.refers.c.call_id, schema.refers.c.number)
    ):
        refers[row.call_id].append(row.described)
    told = {
        row.call_id: orjson.loads(row.body)["data"]
        for row in connection.execute(
            select(schema.events.c.call_id, schema.events.c.body).where(
                schema.events.c.call_id.in_([*open_calls]), schema.events.c.type == "realtime.call.ended"
            )
        )
    }
    found = []
    for call_id in {**open_calls, **snapshots}:
        call, next_entry = open_calls.get(call_id), last.get(call_id, -1) + 1
        if call is None:
            found.append(Orphan(call_id, None, None, snapshots.get(call_id), next_entry))
        else:
            times = CallTimes(call.created_at, call.answered_at, call.ended_at)
            found.append(
                Orphan(
                    call_id,
                    call.described,
                    times,
                    snapshots.get(call_id),
                    next_entry,
                    refers[call_id],
                    told.get(call_id),
                )
            )
    return found
