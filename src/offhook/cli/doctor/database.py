"""Looks at the database, also beside a node at work on it, and reads what was made by API from it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import orjson
from alembic.script import ScriptDirectory
from pydantic import ValidationError
from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

import offhook.store
from offhook.config import Config, ConfigError, ProjectTable
from offhook.store.database import BUSY_MS
from offhook.store.endpoints import read_endpoints
from offhook.store.projects import read_projects
from offhook.tenants import JoinedProjects, StoredProject, WebhookEndpoint

from .facts import DatabaseFacts, StoredFacts

__all__ = ["Stored", "find_database", "find_stored"]

T = TypeVar("T")

CHECK_S = 3.0
"How long a file is looked through for damage; a large one is not looked through to its end."
_STEPS = 10_000
"Of SQLite's machine, between two looks at the clock: some milliseconds."


@dataclass(frozen=True, slots=True)
class Stored:
    """What was made by API: what can be used of it, and what is to be said of the rest."""

    projects: tuple[ProjectTable, ...] = ()
    endpoints: tuple[tuple[str, WebhookEndpoint], ...] = ()
    "With their projects' ids."
    facts: StoredFacts | None = None


def find_database(config: Config) -> DatabaseFacts:
    """Look without changing what is in it."""
    url = config.server.database
    if url == "none":
        return DatabaseFacts(url)
    try:
        parsed = make_url(f"sqlite:///{config.server.data_dir / 'offhook.db'}" if url == "sqlite" else url)
        shown = parsed.render_as_string(hide_password=True)
    except SQLAlchemyError as error:
        return DatabaseFacts("server.database", error=str(error))
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return DatabaseFacts(shown, error="this version of Offhook keeps its data in SQLite alone")
    return _look_at(Path(parsed.database), shown)


def find_stored(config: Config, database: DatabaseFacts) -> Stored:
    """Read projects and endpoints made by API, where the database is one of this version's that can be read."""
    if not (database.exists and database.known and database.revision) or database.error:
        return Stored()
    rows = _read(Path(database.path), read_projects)
    endpoints = _read(Path(database.path), read_endpoints)
    tables, unusable, made = dict[str, ProjectTable](), list[tuple[str, str]](), list[StoredProject]()
    for project_id, name, created_at, settings in rows:
        try:
            table = ProjectTable.model_validate({**settings, "id": project_id})
            config.judge(table)
            made.append(StoredProject(table.to_project(), name, created_at, settings))
        except (ValueError, ConfigError) as error:
            unusable.append((project_id, _in_one_line(error)))
        else:
            tables[project_id] = table
    joined = JoinedProjects(table.to_project() for table in config.projects)
    joined.load(made, ())
    known = {project.id for project in joined.all()}
    return Stored(
        tuple(table for project_id, table in tables.items() if not joined.is_configured(project_id)),
        tuple(one for one in endpoints if one[0] in known),
        StoredFacts(
            projects=len(tables),
            endpoints=len(endpoints),
            unusable=tuple(unusable),
            overshadowed=tuple(
                (one.project.id, joined.clash(one.project) or "id is that of another one")
                for one in joined.overshadowed()
            ),
        ),
    )


def _in_one_line(error: Exception) -> str:
    """Say where the fault is, not what stands there: it may be a password."""
    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors(include_input=False, include_url=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg'].removeprefix('Value error, ')}"
        for one in found
    )


def _look_at(path: Path, shown: str) -> DatabaseFacts:
    scripts = ScriptDirectory(str(Path(offhook.store.__file__).parent / "migrations"))
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    wal = path.with_name(path.name + "-wal")
    facts = DatabaseFacts(
        shown,
        path=str(path),
        exists=path.exists(),
        writable=all(os.access(one, os.W_OK, effective_ids=True) for one in (folder, path) if one.exists()),
        newest=scripts.get_current_head() or "",
        free_bytes=shutil.disk_usage(folder).free,
        bytes=path.stat().st_size if path.is_file() else 0,
        wal_bytes=wal.stat().st_size if wal.is_file() else 0,
    )
    if not facts.exists:
        return facts
    known = {None, *(one.revision for one in scripts.walk_revisions())}
    try:
        with contextlib.closing(_read_only(path)) as reading:
            revision = _revision(reading)
            return replace(
                facts,
                revision=revision,
                known=revision in known,
                error=_damage(reading),
                # Whoever closes last moves the -wal file into the database. That stays the node's to do, which is why
                # the reader is open for longer.
                locked=facts.writable and _is_locked(path),
            )
    except (OSError, sqlite3.Error) as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            return replace(facts, locked=True)
        return replace(facts, error=str(error))


def _read_only(path: Path) -> sqlite3.Connection:
    """
    Open it so that nothing is left behind: a file of another user's beside it would keep the node from writing.

    Without a `-wal` file no program is at work on it, and it is read as it stands.
    """
    at_work = path.with_name(path.name + "-wal").exists()
    return _open(path, "ro" if at_work else "ro&immutable=1")


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=BUSY_MS / 1000, isolation_level=None
    )


def _is_locked(path: Path) -> bool:
    with contextlib.closing(_open(path, "rw")) as writing:
        try:
            writing.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                return True
            raise
        writing.execute("ROLLBACK")
    return False


def _revision(connection: sqlite3.Connection) -> str | None:
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    return str(row[0]) if row else None


def _damage(connection: sqlite3.Connection) -> str:
    """Return the first thing that is wrong with the file, as far as it was looked through; empty when there is none."""
    end = time.monotonic() + CHECK_S
    connection.set_progress_handler(lambda: int(time.monotonic() > end), _STEPS)
    try:
        said = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return ""
        raise
    finally:
        connection.set_progress_handler(None, 0)
    return "" if said == "ok" else f"it is damaged: {said.splitlines()[-1]}"


def _read(path: Path, query: Callable[[Connection], T]) -> T:
    engine = create_engine("sqlite://", creator=lambda: _read_only(path), json_deserializer=orjson.loads)
    try:
        with engine.connect() as connection:
            return query(connection)
    finally:
        engine.dispose()
