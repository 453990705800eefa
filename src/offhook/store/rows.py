"""
Many rows by few statements.

A statement of a hundred rows costs the writer's thread one turn of the interpreter's lock where a hundred statements
cost a hundred, each of which the event loop may have to wait for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Dialect, Table

__all__ = ["delete_rows", "insert_rows", "upsert_rows"]

Row = Mapping[str, Any]

_SIZES = (500, 200, 100, 50, 20, 10, 5, 2, 1)
"""
So that a commit takes few statements, for each of which the thread has to get the lock again, and still so few sizes
that the driver knows each statement already. SQLite takes 32,766 values in one.
"""


def insert_rows(connection: Connection, table: Table, rows: Iterable[Row]) -> None:
    """Insert rows whose values are what the driver takes: text, bytes, numbers, `Json`."""
    _write(connection, table, rows, is_upsert=False)


def upsert_rows(connection: Connection, table: Table, rows: Iterable[Row]) -> None:
    """Insert rows, or bring those with the same primary key up to date. No two may have the same."""
    _write(connection, table, rows, is_upsert=True)


def delete_rows(connection: Connection, table: Table, keys: Sequence[object]) -> None:
    """Delete rows by their primary key, which is one column."""
    if not keys:
        return
    (key,) = table.primary_key
    for size, some in _pieces(keys):
        marks = ", ".join([_mark(connection.dialect)] * size)
        name = _quoted(connection.dialect, key.name)
        connection.exec_driver_sql(f"DELETE FROM {table.name} WHERE {name} IN ({marks})", tuple(some))  # noqa: S608


def _write(connection: Connection, table: Table, rows: Iterable[Row], *, is_upsert: bool) -> None:
    alike: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        alike[tuple(row)].append(row)
    for names, those in alike.items():
        for size, some in _pieces(those):
            sql = _statement(connection.dialect, table, names, size, is_upsert)
            connection.exec_driver_sql(sql, tuple(chain.from_iterable(row.values() for row in some)))


def _pieces(items: Sequence[Any]) -> Iterable[tuple[int, Sequence[Any]]]:
    start = 0
    for size in _SIZES:
        while len(items) - start >= size:
            yield size, items[start : start + size]
            start += size


@lru_cache(maxsize=256)
def _statement(dialect: Dialect, table: Table, names: tuple[str, ...], size: int, is_upsert: bool) -> str:
    row = f"({', '.join([_mark(dialect)] * len(names))})"
    columns = [_quoted(dialect, name) for name in names]
    sql = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES {', '.join([row] * size)}"  # noqa: S608
    if not is_upsert:
        return sql
    keys = [_quoted(dialect, column.name) for column in table.primary_key]
    changed = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in keys)
    return f"{sql} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}"


def _mark(dialect: Dialect) -> str:
    return "?" if dialect.paramstyle == "qmark" else "%s"


def _quoted(dialect: Dialect, name: str) -> str:
    return dialect.identifier_preparer.quote(name)
