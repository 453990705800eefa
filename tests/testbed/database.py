"""
A database for a test: SQLite in the test's folder, or the one that OFFHOOK_TEST_DATABASE names, by SQLAlchemy URL.

What is in that one is deleted first: name none that anybody needs, and run such tests in one process.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import MetaData, create_engine

from offhook.store import Database
from offhook.store.writer import WriterLimits

__all__ = ["QUICK", "opened_database"]

URL = os.environ.get("OFFHOOK_TEST_DATABASE", "sqlite")
QUICK = WriterLimits(group_s=0.001, lazy_s=0.005, retry_s=0.02)

_emptied: set[Path] = set()


@asynccontextmanager
async def opened_database(folder: Path, *, limits: WriterLimits = QUICK) -> AsyncIterator[Database]:
    """Open a test's database. A second time with the same folder, what was written is still there."""
    if URL != "sqlite" and folder not in _emptied:
        _empty()
        _emptied.add(folder)
    database = await Database.open(URL, folder, limits=limits)
    try:
        yield database
    finally:
        await database.close()


def _empty() -> None:
    engine = create_engine(URL)
    tables = MetaData()
    tables.reflect(engine)
    tables.drop_all(engine)
    engine.dispose()
