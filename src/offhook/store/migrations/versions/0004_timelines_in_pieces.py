"""Timelines in pieces"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

AT_ONCE = 2_000
"Rows in memory at a time: a file of months has millions."

_entries = sa.table(
    "timeline",
    sa.column("call_id", sa.String),
    sa.column("number", sa.Integer),
    sa.column("at", sa.Float),
    sa.column("kind", sa.String),
    sa.column("title", sa.Text),
    sa.column("details", sa.JSON),
)
_pieces = sa.table(
    "timeline_pieces",
    sa.column("call_id", sa.String),
    sa.column("first", sa.Integer),
    sa.column("entries", sa.JSON),
)


def upgrade() -> None:
    op.create_table(
        "timeline_pieces",
        sa.Column("call_id", sa.String(length=80), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("entries", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("call_id", "first"),
    )
    connection = op.get_bind()
    for rows in _in_pages(connection, _entries, "number"):
        pieces = [
            {
                "call_id": call_id,
                "first": of_call[0].number,
                "entries": [[row.number, row.at, row.kind, row.title, row.details] for row in of_call],
            }
            for call_id, some in groupby(rows, attrgetter("call_id"))
            for of_call in [list(some)]
        ]
        connection.execute(sa.insert(_pieces), pieces)
    op.drop_table("timeline")


def downgrade() -> None:
    op.create_table(
        "timeline",
        sa.Column("call_id", sa.String(length=80), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("call_id", "number"),
    )
    connection = op.get_bind()
    for pieces in _in_pages(connection, _pieces, "first"):
        rows = [
            {
                "call_id": piece.call_id,
                "number": number,
                "at": at,
                "kind": kind,
                "title": title,
                "details": details,
            }
            for piece in pieces
            for number, at, kind, title, details in piece.entries
        ]
        connection.execute(sa.insert(_entries), rows)
    op.drop_table("timeline_pieces")


def _in_pages(connection: sa.Connection, table: Any, number: str) -> Iterator[list[Any]]:
    """Yield rows by call and number, each page by a query of its own: no database need hold all of them at once."""
    place = (table.c.call_id, table.c[number])
    query = sa.select(table).order_by(*place).limit(AT_ONCE)
    rows = list(connection.execute(query))
    while rows:
        yield rows
        last = (rows[-1].call_id, getattr(rows[-1], number))
        rows = list(connection.execute(query.where(sa.tuple_(*place) > sa.tuple_(*map(sa.literal, last)))))
