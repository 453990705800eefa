"""A database of the first version becomes one of this version with all that is in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, create_engine, event, func, select, text

import offhook.store
from offhook.store import StoreError, schema
from offhook.store.endpoints import StoredEndpoints
from offhook.store.past import StorePastCalls
from testbed.database import URL, opened_database

T = TypeVar("T")
OF_KIND = {str: "x", int: 7, float: 5.0, bytes: b"{}", bool: True, object: {"id": "rtc_1"}}


def of_the_first_version(folder: Path) -> set[str]:
    """Make one, with a row in each table, and return the tables' names."""
    engine = create_engine(f"sqlite:///{folder / 'offhook.db'}")
    config = Config()
    config.set_main_option("script_location", str(Path(offhook.store.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        tables = MetaData()
        tables.reflect(connection, only=lambda name, _: name != "alembic_version")
        for table in tables.sorted_tables:
            connection.execute(
                table.insert(), {column.name: OF_KIND[column.type.python_type] for column in table.columns}
            )
    engine.dispose()
    return set(tables.tables)


@pytest.mark.skipif(URL != "sqlite", reason="it is made as a file")
async def test_nothing_of_the_first_version_is_lost(tmp_path):
    names = of_the_first_version(tmp_path)
    assert "calls" in names
    async with opened_database(tmp_path) as database:
        for name in names:
            now = "timeline_pieces" if name == "timeline" else name
            query = select(func.count()).select_from(schema.metadata.tables[now])
            assert await database.read(lambda c, query=query: c.execute(query).scalar()) == 1, name
        differences = await database.read(
            lambda c: compare_metadata(MigrationContext.configure(c), schema.metadata)
        )
        assert differences == []
        call = await StorePastCalls(database).find("x", "x")
        assert call is not None
        assert call.described == {"id": "rtc_1"}
        (entry,) = (await StorePastCalls(database).timeline("x"))["data"]
        assert (entry["number"], entry["kind"], entry["title"], entry["id"]) == (7, "x", "x", "rtc_1")
        ((project_id, endpoint),) = await StoredEndpoints(database).load()
        assert (project_id, endpoint.url) == ("x", "x")
        assert "x" in str(endpoint.secrets)


@pytest.mark.skipif(URL != "sqlite", reason="it is made as a file")
async def test_a_migration_that_is_cut_off_is_undone_and_the_next_start_does_it(tmp_path):
    of_the_first_version(tmp_path)

    def disk_full(connection, cursor, statement, *_):
        if "DROP COLUMN" in statement:
            raise OSError("database or disk is full")

    event.listen(Engine, "before_cursor_execute", disk_full)
    try:
        with pytest.raises(StoreError, match="disk is full"):
            async with opened_database(tmp_path):
                pass
    finally:
        event.remove(Engine, "before_cursor_execute", disk_full)
    engine = create_engine(f"sqlite:///{tmp_path / 'offhook.db'}")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0002"
        made = connection.execute(text("SELECT sql FROM sqlite_master WHERE name = 'webhook_endpoints'"))
        assert "old_secrets" not in made.scalar_one()
    engine.dispose()
    async with opened_database(tmp_path) as database:
        assert len(await StoredEndpoints(database).load()) == 1


def migrated(folder: Path, revision: str, work: Callable[[Connection], T], *, down: bool = False) -> T:
    """Bring a file to a revision and return what `work` makes of it."""
    engine = create_engine(f"sqlite:///{folder / 'offhook.db'}")
    config = Config()
    config.set_main_option("script_location", str(Path(offhook.store.__file__).parent / "migrations"))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            (command.downgrade if down else command.upgrade)(config, revision)
            return work(connection)
    finally:
        engine.dispose()


OLD_ENTRIES = "SELECT call_id, number, at, kind, title, details FROM timeline ORDER BY call_id, number"


@pytest.mark.skipif(URL != "sqlite", reason="it is made as a file")
async def test_long_timelines_become_pieces_and_come_back_as_they_were(tmp_path):
    """More rows than are taken at a time, a gap in their numbers, and what JSON has to escape."""
    entries = [
        {
            "call_id": call_id,
            "number": number,
            "at": number / 8,
            "kind": "sip",
            "title": f"'{number}'",
            "details": "{}",
        }
        for call_id, count in (("rtc_a", 1_999), ("rtc_b", 2_003), ("rtc_c", 1))
        for number in range(count)
        if number != 5
    ]
    entries[3]["details"] = json.dumps({"message": 'To: "Jürgen" <sip:j@x>\r\n'}, ensure_ascii=False)

    def fill(connection: Connection) -> list[tuple[object, ...]]:
        names = list(entries[0])
        marks = ", ".join(f":{name}" for name in names)
        connection.execute(text(f"INSERT INTO timeline ({', '.join(names)}) VALUES ({marks})"), entries)
        return [tuple(row) for row in connection.execute(text(OLD_ENTRIES))]

    before = migrated(tmp_path, "0003", fill)
    async with opened_database(tmp_path) as database:
        body = await StorePastCalls(database).timeline("rtc_b")
        assert [entry["number"] for entry in body["data"]] == [n for n in range(2_003) if n != 5]
        assert body["dropped"] == 1
        first = await StorePastCalls(database).timeline("rtc_a")
        assert first["data"][3]["message"] == 'To: "Jürgen" <sip:j@x>\r\n'
    after = migrated(
        tmp_path, "0003", lambda c: [tuple(row) for row in c.execute(text(OLD_ENTRIES))], down=True
    )
    assert [(*row[:5], json.loads(str(row[5]))) for row in after] == [
        (*row[:5], json.loads(str(row[5]))) for row in before
    ]
