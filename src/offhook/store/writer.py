"""One thread that writes for everybody, many statements to a commit. The event loop only hands over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from offhook import precedence

from .json_text import Json
from .rows import delete_rows, insert_rows, upsert_rows

__all__ = ["NotStoredError", "Writer", "WriterLimits"]

log = logging.getLogger("offhook.store")

Work = Callable[[Connection], object]


@dataclass(frozen=True, slots=True)
class WriterLimits:
    group_s: float = 0.02
    "How long the first of a group waits for others to share its commit."
    lazy_s: float = 0.1
    "How long rows wait that nobody waits for."
    group: int = 500
    "The most in one commit."
    waiting: int = 50_000
    "The most that wait while the database cannot be written. Rows that may be lost are given up at half of it."
    retry_s: float = 0.5
    "Between attempts at a database that is locked, or whose disk is full."
    say_s: float = 60.0
    "Between two log lines about the same trouble."


@dataclass(eq=False, slots=True)
class _Row:
    """To be inserted."""

    table: Table
    values: Mapping[str, Any]
    written: None = field(default=None, init=False)


@dataclass(eq=False, slots=True)
class _Entry:
    """To be added to a list."""

    table: Table
    key: str
    number: int
    text: Json
    written: None = field(default=None, init=False)


@dataclass(eq=False, slots=True)
class _Kept:
    """To be as it is here, whatever it was."""

    table: Table
    key: object
    values: Mapping[str, Any] | None
    "`None`: gone."
    written: None = field(default=None, init=False)


@dataclass(eq=False, slots=True)
class _Work:
    """To be done."""

    work: Work
    written: asyncio.Future[None] | None


_Item = _Row | _Entry | _Kept | _Work


class Writer:
    """
    Takes rows and pieces of work from the event loop and writes them a little later.

    `append` is for rows that nothing refers to, and `extend` for lists that grow, such as timelines: these are given up
    first when the database cannot be written. `keep` is for rows that change: of several states in one commit the last
    is written. `put` is for all else, in order of arrival. Rows are written after the work that shares their commit,
    some 100 ms after they came; work some 20 ms. None blocks or raises. What is wrong with one costs no other its
    commit.
    """

    def __init__(self, engine: Engine, limits: WriterLimits | None = None) -> None:
        self._engine = engine
        self._limits = limits or WriterLimits()
        self._queue: deque[_Item] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._trouble: str | None = None
        self._said_at = self._lost_at = float("-inf")
        self.lost = 0
        "How many rows and pieces of work were given up."
        self.commits = 0
        self.commit_s = 0.0
        "How many commits there were, and how long all of them took."
        self._thread = threading.Thread(target=self._run, name="offhook-store-writer", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written at present; `None` while all is well."""
        return self._trouble

    @property
    def waiting(self) -> int:
        """How much is not committed yet."""
        return len(self._queue)

    def append(self, table: Table, values: Mapping[str, Any]) -> None:
        """Insert one row into a table of which nothing is ever changed."""
        if len(self._queue) >= self._limits.waiting // 2 or self._stopping:
            self._lose()
            return
        self._queue.append(_Row(table, values))

    def extend(self, table: Table, key: str, number: int, entry: Json) -> None:
        """
        Add to the list of this key. `number` counts its entries.

        What is added to one list within one commit becomes one row of the table: the key, the first entry's number, and
        a JSON list of the entries. A row for each would cost five times the work.
        """
        if len(self._queue) >= self._limits.waiting // 2 or self._stopping:
            self._lose()
            return
        self._queue.append(_Entry(table, key, number, entry))

    def keep(self, table: Table, key: object, values: Mapping[str, Any] | None) -> None:
        """
        Have the row with this primary key hold these values, `None`: have no such row.

        `values` has the key, too. A table whose rows go has one column for its key.
        """
        if len(self._queue) >= self._limits.waiting or self._stopping:
            self._lose()
            return
        self._queue.append(_Kept(table, key, values))

    def put(self, work: Work, *, written: asyncio.Future[None] | None = None) -> None:
        """
        Do this with a connection, inside a transaction that others share.

        `written` is a future of the running loop: done when it is committed, failed with `NotStoredError` when it never
        will be. `work` must be able to run twice: a group that fails is tried again piece by piece.
        """
        if len(self._queue) >= self._limits.waiting or self._stopping:
            self._lose()
            _settle([(written, NotStoredError("the database could not be written for too long"))])
            return
        self._queue.append(_Work(work, written))
        self._rouse()

    def close(self, *, timeout: float = 5.0) -> None:
        """Write what waits, for at most `timeout` seconds, and end the thread."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout)
        if self._thread.is_alive() or self._queue:
            log.error(
                "%d rows were not written before the end", len(self._queue), extra={"event": "store.lost"}
            )

    def _lose(self, why: str = "", error: Exception | None = None) -> None:
        self.lost += 1
        why = why or ("the database is closed" if self._stopping else "the database cannot keep up")
        now = time.monotonic()
        if now - self._lost_at >= self._limits.say_s:
            self._lost_at = now
            log.error(
                "%s; %d were lost since the start", why, self.lost,
                exc_info=error, extra={"event": "store.lost", "lost": self.lost},
            )  # fmt: skip

    def _rouse(self) -> None:
        if not self._wake.is_set():
            self._wake.set()

    # In the thread.

    def _run(self) -> None:
        precedence.go_behind()
        while True:
            if self._wake.wait(self._limits.lazy_s):
                if not self._stopping:
                    time.sleep(self._limits.group_s)
                self._wake.clear()
            while self._queue:
                group = [self._queue.popleft() for _ in range(min(len(self._queue), self._limits.group))]
                if not self._write(group):
                    self._queue.extendleft(reversed(group))
                    if self._stopping:
                        return
                    time.sleep(self._limits.retry_s)
            if self._stopping and not self._queue:
                return

    def _write(self, group: list[_Item]) -> bool:
        """Commit a group; False when the database cannot be written now, and it must be tried again."""
        try:
            self._commit(group)
        except SQLAlchemyError as error:
            if _is_passing(error):
                self._say(error)
                return False
            return self._write_singly(group)
        except Exception:
            return self._write_singly(group)
        self._well()
        _settle([(item.written, None) for item in group])
        return True

    def _write_singly(self, group: list[_Item]) -> bool:
        """One of the group is at fault: find it, and let the others have their commits."""
        for number, item in enumerate(group):
            try:
                self._commit([item])
            except Exception as error:
                if isinstance(error, SQLAlchemyError) and _is_passing(error):
                    self._say(error)
                    self._queue.extendleft(reversed(group[number:]))
                    time.sleep(self._limits.retry_s)
                    return True
                self._lose("a row could not be written", error)
                _settle([(item.written, NotStoredError(f"the database refused it: {error}"))])
            else:
                self._well()
                _settle([(item.written, None)])
        return True

    def _commit(self, group: list[_Item]) -> None:
        new: defaultdict[Table, list[Mapping[str, Any]]] = defaultdict(list)
        lists: defaultdict[tuple[Table, str], list[_Entry]] = defaultdict(list)
        kept: defaultdict[Table, dict[object, Mapping[str, Any] | None]] = defaultdict(dict)
        began_at = time.monotonic()
        with self._engine.begin() as connection:
            for item in group:
                match item:
                    case _Row(table, values):
                        new[table].append(values)
                    case _Entry(table, key):
                        lists[table, key].append(item)
                    case _Kept(table, key, values):
                        kept[table][key] = values
                    case _Work(work):
                        work(connection)
            for (table, key), entries in lists.items():
                new[table].append(_piece(table, key, entries))
            for table, rows in new.items():
                insert_rows(connection, table, rows)
            for table, states in kept.items():
                upsert_rows(connection, table, [values for values in states.values() if values is not None])
                delete_rows(connection, table, [key for key, values in states.items() if values is None])
        self.commits += 1
        self.commit_s += time.monotonic() - began_at

    def _say(self, error: SQLAlchemyError) -> None:
        self._trouble = str(getattr(error, "orig", None) or error)
        now = time.monotonic()
        if now - self._said_at >= self._limits.say_s:
            self._said_at = now
            log.error(
                "the database cannot be written, calls go on: %s",
                self._trouble,
                extra={"event": "store.trouble", "waiting": len(self._queue), "lost": self.lost},
            )

    def _well(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self._said_at = float("-inf")
            log.warning(
                "the database can be written again; %d rows were lost",
                self.lost,
                extra={"event": "store.well", "lost": self.lost},
            )


def _piece(table: Table, key: str, entries: list[_Entry]) -> dict[str, Any]:
    name, first, piece = table.columns.keys()
    return {
        name: key,
        first: entries[0].number,
        piece: Json(f"[{','.join([entry.text for entry in entries])}]"),
    }


class NotStoredError(Exception):
    """It was not written and will not be."""


_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)


def _is_passing(error: SQLAlchemyError) -> bool:
    """Whether time or the operator mends it: a lock, a full disk, a lost connection."""
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):  # which calls bad SQL operational, too
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _PASSING
    return isinstance(error, OperationalError) or error.connection_invalidated


def _settle(futures: list[tuple[asyncio.Future[None] | None, Exception | None]]) -> None:
    """Tell those who wait, on their own loop, in one go."""
    told = [(future, error) for future, error in futures if future is not None]
    if not told:
        return

    def settle() -> None:
        for future, error in told:
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop has gone: nobody waits any more
        told[0][0].get_loop().call_soon_threadsafe(settle)
