"""The database: opened, brought up to date, and lent to one thread that writes and one that reads."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import orjson
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Executable, Table, bindparam, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from offhook import precedence
from offhook.calls.past import PastUnavailable

from .json_text import Json
from .writer import NotStoredError, Writer, WriterLimits

__all__ = ["Database", "StoreError", "insert_once", "upsert"]

T = TypeVar("T")

BUSY_MS = 2_000
"How long a statement waits for another process's lock before it counts as refused."
PATIENCE_S = 5.0
"How long whoever asked for a change waits for its commit."


class StoreError(Exception):
    """The database cannot be used. The message names it, the fault and the remedy."""


class Database:
    """
    One database with its threads.

    `writer` takes what is to be written. `read` runs a function with a connection in the reading thread: it sees
    what was committed before, and must not write.
    """

    def __init__(self, engine: Engine, limits: WriterLimits | None = None) -> None:
        self._engine = engine
        self._reader = ThreadPoolExecutor(1, "offhook-store-reader", precedence.go_behind)
        self.writer = Writer(engine, limits)

    @classmethod
    async def open(cls, url: str, data_dir: Path, *, limits: WriterLimits | None = None) -> Database:
        """
        Open `sqlite` (a file in `data_dir`) or a SQLAlchemy URL, and make its tables what this version needs.

        Raises `StoreError`.
        """
        return cls(await asyncio.to_thread(_open, url, data_dir), limits)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Return what a function of a connection returns. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._query, query)

    async def read_kept(self, query: Callable[[Connection], T]) -> T:
        """Like `read`, for who is asked what is kept. Raises `PastUnavailable` where the database cannot be read."""
        try:
            return await self.read(query)
        except SQLAlchemyError as error:
            raise PastUnavailable(f"the database cannot be read: {getattr(error, 'orig', error)}") from error

    async def write(self, work: Callable[[Connection], object]) -> None:
        """Do this and wait for its commit. Raises `NotStoredError`, see `Writer.put`."""
        written = asyncio.get_running_loop().create_future()
        self.writer.put(work, written=written)
        await written

    async def keep(self, work: Callable[[Connection], object]) -> bool:
        """
        Do this, and return whether it is committed within `PATIENCE_S`.

        If not, it never will be: who is told that it failed must not find it done later.
        """
        given_up = False

        def unless_given_up(connection: Connection) -> None:
            if given_up:
                return
            work(connection)
            if given_up:  # while it waited for a lock: the group is rolled back, and done again without it
                raise TimeoutError

        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.write(unless_given_up)
        except (TimeoutError, NotStoredError):
            given_up = True
            return False
        return True

    def describe(self) -> dict[str, object]:
        """Return how far the writer is behind, for the operator."""
        return {"waiting": self.writer.waiting, "lost": self.writer.lost, "trouble": self.writer.trouble}

    def warnings(self) -> list[str]:
        """Return what the operator should look at."""
        trouble, lost = self.writer.trouble, self.writer.lost
        said = [f"the database cannot be written, calls go on: {trouble}"] if trouble is not None else []
        return [*said, f"{lost} rows could not be written since the start"] if lost else said

    async def close(self) -> None:
        """Write what waits, then let go of the file."""
        await asyncio.to_thread(self.writer.close)
        self._reader.shutdown()
        self._engine.dispose()

    def _query(self, query: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return query(connection)


def upsert(connection: Connection, table: Table, values: dict[str, Any]) -> None:
    """Insert a row, or bring the one with the same primary key up to date."""
    connection.execute(_upsert_of(connection.dialect.name, table, tuple(values)), values)


def insert_once(connection: Connection, table: Table, values: dict[str, Any]) -> None:
    """Insert a row, unless there is one with the same primary key."""
    connection.execute(_insert_of(connection.dialect.name, table), values)


@lru_cache
def _insert_of(dialect: str, table: Table) -> Executable:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return make(table).on_conflict_do_nothing(index_elements=[column.name for column in table.primary_key])


@lru_cache
def _upsert_of(dialect: str, table: Table, names: tuple[str, ...]) -> Executable:
    """Make the statement once: `excluded` alone is a copy of the table, 600 objects that only the collector frees."""
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    keys = [column.name for column in table.primary_key]
    statement = make(table).values({name: bindparam(name) for name in names})
    changed = {name: statement.excluded[name] for name in names if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


def _open(url: str, data_dir: Path) -> Engine:
    in_data_dir = url == "sqlite"
    try:
        place = make_url(f"sqlite:///{data_dir / 'offhook.db'}" if in_data_dir else url)
    except SQLAlchemyError:
        raise StoreError(
            # What was given may have a password in it, wherever it stands.
            "server.database is no database: give sqlite, or a URL such as sqlite:////var/lib/offhook.db"
        ) from None
    shown = place.render_as_string(hide_password=True)
    is_file = place.get_backend_name() == "sqlite"
    try:
        if in_data_dir:
            data_dir.mkdir(parents=True, exist_ok=True)
        if is_file and place.database and place.database != ":memory:":
            # Signing secrets are in it. Its -wal file gets the same mode.
            os.close(os.open(place.database, os.O_RDONLY | os.O_CREAT, 0o600))
        engine = create_engine(
            place,
            connect_args=_connect_args(place.get_backend_name()),
            json_serializer=Json.of,
            json_deserializer=orjson.loads,
            hide_parameters=True,  # errors are logged, and rows have secrets in them
        )
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _configure)
            event.listen(engine, "begin", _begin)
        with engine.connect() as connection:
            _migrate(connection)
            connection.commit()
    except CommandError as error:
        raise StoreError(
            f"server.database {shown} was made by a newer version of Offhook ({error}): install that version, or give "
            "another database."
        ) from error
    except ImportError as error:
        raise StoreError(f"server.database {shown} needs the package {error.name}: install it.") from error
    except (SQLAlchemyError, OSError, sqlite3.Error) as error:
        fault = getattr(error, "orig", None) or error
        remedy = (
            "Check that the file and its folder can be written and are not damaged; a copy of it with its -wal file is "
            "a backup."
            if is_file
            else "Check that it can be reached, and the name and password in the URL."
        )
        raise StoreError(f"server.database {shown} cannot be used: {str(fault).strip()}. {remedy}") from error
    return engine


def _connect_args(backend: str) -> dict[str, Any]:
    # A connection is used by one thread at a time, but not always by the one that made it.
    return {"timeout": BUSY_MS / 1000, "check_same_thread": False} if backend == "sqlite" else {}


def _configure(connection: sqlite3.Connection, record: object) -> None:
    # SQLAlchemy begins transactions itself, below.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # A commit outlives the process; it need not outlive the power (a checkpoint does).
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _migrate(connection: Connection) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
