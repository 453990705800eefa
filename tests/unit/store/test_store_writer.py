"""What the event loop may count on while the database is written, locked, full or wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
from contextlib import asynccontextmanager, closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, event, insert, select, text

from offhook.store import Database, StoreError
from offhook.store.database import upsert
from offhook.store.json_text import Json
from offhook.store.schema import dialogs, metadata, timeline_pieces, turns, webhook_endpoints
from offhook.store.writer import NotStoredError, WriterLimits

QUICK = WriterLimits(group_s=0.001, lazy_s=0.01, retry_s=0.02)


@asynccontextmanager
async def database(folder, url="sqlite", limits=QUICK):
    opened = await Database.open(url, folder, limits=limits)
    try:
        yield opened
    finally:
        await opened.close()


def entry(number: int, call_id: str = "rtc_1") -> dict:
    return {
        "call_id": call_id,
        "number": number,
        "at": 1.5,
        "described": Json.of({"message": "ü"}),
    }


def dialog(call_id: str, **snapshot: object):
    return lambda connection: upsert(
        connection, dialogs, {"call_id": call_id, "node": "u0", "snapshot": snapshot}
    )


def count(connection: Connection) -> int:
    return len(connection.execute(select(turns.c.number)).all())


async def until(holds, limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not holds():
            await asyncio.sleep(0.005)


async def test_rows_are_there_after_a_later_commit_and_after_opening_again(tmp_path):
    async with database(tmp_path) as store:
        for number in range(1000):
            store.writer.append(turns, entry(number))
        await store.write(dialog("rtc_1", cseq=7))
        assert await store.read(count) == 1000
    async with database(tmp_path) as store:
        found = await store.read(lambda c: c.execute(select(turns).where(turns.c.number == 999)).one())
        assert found.described == {"message": "ü"}
        assert (await store.read(lambda c: c.execute(select(dialogs)).one())).snapshot == {"cseq": 7}


async def test_an_upsert_brings_a_row_up_to_date(tmp_path):
    async with database(tmp_path) as store:
        await store.write(dialog("rtc_1", cseq=1))
        await store.write(dialog("rtc_1", cseq=2))
        rows = await store.read(lambda c: c.execute(select(dialogs)).all())
    assert [row.snapshot for row in rows] == [{"cseq": 2}]


async def test_an_upsert_leaves_next_to_nothing_to_the_collector(tmp_path):
    """Thousands of calls a minute make some each, and a full collection stops the sound of all of them."""
    async with database(tmp_path) as store:
        await store.write(dialog("rtc_0"))
        gc.collect()
        gc.disable()
        try:
            for number in range(50):
                await store.write(dialog(f"rtc_{number}", cseq=number))
            assert gc.collect() < 50 * 20
        finally:
            gc.enable()


async def test_what_closing_finds_waiting_is_written(tmp_path):
    async with database(tmp_path) as store:
        for number in range(5000):
            store.writer.append(turns, entry(number))
    async with database(tmp_path) as store:
        assert await store.read(count) == 5000


async def test_one_wrong_piece_costs_no_other_its_commit(tmp_path, caplog):
    async with database(tmp_path) as store:
        loop = asyncio.get_running_loop()
        before, wrong, after = loop.create_future(), loop.create_future(), loop.create_future()
        store.writer.put(dialog("rtc_1"), written=before)
        store.writer.put(lambda c: c.execute(text("INSERT INTO nowhere VALUES (1)")), written=wrong)
        store.writer.append(turns, entry(1))
        store.writer.append(turns, entry(1))  # the same number again
        store.writer.append(turns, entry(2))
        store.writer.put(dialog("rtc_2"), written=after)
        await before
        await after
        with pytest.raises(NotStoredError, match="nowhere"):
            await wrong
        assert await store.read(count) == 2
        assert store.writer.lost == 2


async def test_while_another_process_locks_it_nothing_waits_and_it_recovers_by_itself(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("offhook.store.database.BUSY_MS", 20)
    async with database(tmp_path) as store:
        await store.write(dialog("rtc_1"))
        with closing(sqlite3.connect(tmp_path / "offhook.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            written = asyncio.get_running_loop().create_future()
            store.writer.put(dialog("rtc_2"), written=written)
            store.writer.append(turns, entry(1))
            await until(lambda: store.writer.trouble)
            assert not written.done()
            assert "locked" in store.writer.trouble
            said = [record for record in caplog.records if record.levelno == logging.ERROR]
            assert len(said) == 1
            assert "calls go on" in said[0].getMessage()
            other.execute("ROLLBACK")
        await asyncio.wait_for(written, 30)
        assert store.writer.trouble is None
        assert await store.read(count) == 1


async def test_a_full_disk_is_said_and_what_may_be_lost_is_given_up_first(tmp_path, caplog):
    limits = WriterLimits(group_s=0.001, lazy_s=0.01, retry_s=0.02, waiting=20)
    async with database(tmp_path, limits=limits) as store:
        await store.write(lambda c: c.execute(text("PRAGMA max_page_count = 1")))  # as large as it is
        filler = {"message": "x" * 100_000}
        store.writer.append(turns, entry(0) | {"described": Json.of(filler)})
        await until(lambda: store.writer.trouble)
        assert "full" in store.writer.trouble
        for number in range(1, 30):
            store.writer.append(turns, entry(number))
        assert store.writer.lost > 0
        essential = asyncio.get_running_loop().create_future()
        store.writer.put(dialog("rtc_2"), written=essential)
        await asyncio.sleep(0)
        assert not essential.done()  # it waits, it is not given up
        for number in range(30):
            store.writer.put(dialog(f"rtc_{number}"))
        last = asyncio.get_running_loop().create_future()
        store.writer.put(dialog("rtc_9"), written=last)
        with pytest.raises(NotStoredError, match="too long"):
            await last
    assert "were not written before the end" in caplog.text


@pytest.mark.parametrize(
    "url", ["postgresql//u:pass-w0rd@h/x", "://u:pass-w0rd@h", "nothing://u:pass-w0rd@h/x"]
)
async def test_a_url_that_cannot_be_used_is_refused_without_its_password(tmp_path, url):
    with pytest.raises(StoreError, match=r"server\.database") as refused:
        await Database.open(url, tmp_path)
    assert "pass-w0rd" not in str(refused.value)


async def test_a_file_that_is_no_database_is_said_with_the_remedy(tmp_path):
    (tmp_path / "offhook.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match=r"offhook\.db cannot be used: .*not a database.*written"):
        await Database.open("sqlite", tmp_path)


async def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StoreError, match="data"):
        await Database.open("sqlite", tmp_path / "data")


async def test_a_database_of_a_newer_version_is_said(tmp_path):
    async with database(tmp_path) as store:
        await store.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(StoreError, match="newer version of Offhook"):
        await Database.open("sqlite", tmp_path)


async def test_a_database_whose_driver_is_missing_is_said(tmp_path):
    with pytest.raises(StoreError, match=r"postgresql\+psycopg2cffi://h/d needs the package psycopg2cffi"):
        await Database.open("postgresql+psycopg2cffi://h/d", tmp_path)


async def test_nobody_else_may_read_the_secrets_in_it(tmp_path):
    async with database(tmp_path) as store:
        await store.write(dialog("rtc_1"))
        files = sorted(tmp_path.iterdir())
        assert [file.name for file in files] == ["offhook.db", "offhook.db-shm", "offhook.db-wal"]
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


async def test_nor_when_it_is_elsewhere(tmp_path):
    path = tmp_path / "elsewhere.db"
    async with database(tmp_path, f"sqlite:///{path}") as store:
        await store.write(dialog("rtc_1"))
        assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("elsewhere*")} == {0o600}


async def test_what_a_refused_row_holds_is_not_logged(tmp_path, caplog):
    """It may be a signing secret."""
    async with database(tmp_path) as store:
        secret = {"id": "wh_1", "secret": "whsec_verysecret"}
        with pytest.raises(NotStoredError) as refused:
            await store.write(lambda connection: upsert(connection, webhook_endpoints, secret))
    assert "could not be written" in caplog.text
    assert "verysecret" not in caplog.text
    assert "verysecret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql//me:verysecret@h/d", r"^server\.database is no database: give sqlite, or a URL"),
        (
            "sqlite:////no/such/folder/me.db",
            r"No such file or directory.*\. Check that the file and its folder",
        ),
    ],
)
async def test_what_names_no_database_is_said_without_its_password(tmp_path, url, said):
    with pytest.raises(StoreError, match=said) as caught:
        await Database.open(url, tmp_path)
    assert "verysecret" not in str(caught.value)


async def test_rows_that_are_refused_are_said_once_a_minute_not_each(tmp_path, caplog):
    async with database(tmp_path) as store:
        await store.write(lambda c: c.execute(text("DROP TABLE turns")))
        for number in range(50):
            store.writer.append(turns, entry(number))
        await until(lambda: store.writer.lost == 50)
        assert store.warnings() == ["50 rows could not be written since the start"]
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 1


async def test_migrations_make_the_tables_that_the_code_uses(tmp_path):
    async with database(tmp_path) as store:
        different = await store.read(
            lambda c: compare_metadata(MigrationContext.configure(c, opts={"compare_type": True}), metadata)
        )
    assert different == []


async def test_rows_are_portable(tmp_path):
    """Nothing but `upsert` knows a dialect: the statements compile for PostgreSQL, too."""
    from sqlalchemy.dialects import postgresql

    for table in metadata.tables.values():
        assert "INSERT INTO" in str(insert(table).compile(dialect=postgresql.dialect()))


async def test_of_a_row_that_changes_the_last_state_is_kept(tmp_path):
    """Also where it goes and comes back, in one commit or in several."""
    async with database(tmp_path) as store:

        def keep(call_id: str, state: int | None) -> None:
            row = {"call_id": call_id, "node": "u0", "snapshot": Json.of({"state": state})}
            store.writer.keep(dialogs, call_id, None if state is None else row)

        for state in (1, None, 2):
            keep("rtc_back", state)
        for state in (1, 2, None):
            keep("rtc_gone", state)
        keep("rtc_later", 1)
        for number in range(250):
            keep(f"rtc_{number}", number)
        await store.write(lambda _: None)
        keep("rtc_later", None)
        keep("rtc_7", 8)
        await store.write(lambda _: None)
        rows = await store.read(lambda c: c.execute(select(dialogs.c.call_id, dialogs.c.snapshot)).all())
    assert dict(map(tuple, rows)) == {
        "rtc_back": {"state": 2},
        **{f"rtc_{number}": {"state": number} for number in range(250)},
        "rtc_7": {"state": 8},
    }


async def test_a_thousand_rows_take_some_ten_statements(tmp_path):
    async with database(tmp_path) as store:
        statements = []
        event.listen(store._engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        for number in range(999):
            store.writer.append(turns, entry(number))
        await store.write(lambda _: None)
        assert await store.read(count) == 999
    assert len([text for text in statements if text.startswith("INSERT")]) < 60


async def pieces(store) -> list[tuple]:
    columns = timeline_pieces.c
    query = select(columns.call_id, columns.first, columns.entries).order_by(columns.call_id, columns.first)
    return [tuple(row) for row in await store.read(lambda c: c.execute(query).all())]


async def test_entries_of_one_list_that_share_a_commit_become_one_row(tmp_path):
    async with database(tmp_path) as store:
        for number in range(3):
            for call_id in ("rtc_1", "rtc_2"):
                store.writer.extend(timeline_pieces, call_id, number, Json.of([number, "ü"]))
        await store.write(lambda _: None)
        store.writer.extend(timeline_pieces, "rtc_1", 3, Json.of([3, "later"]))
        await store.write(lambda _: None)
        assert await pieces(store) == [
            ("rtc_1", 0, [[0, "ü"], [1, "ü"], [2, "ü"]]),
            ("rtc_1", 3, [[3, "later"]]),
            ("rtc_2", 0, [[0, "ü"], [1, "ü"], [2, "ü"]]),
        ]


async def test_an_entry_that_is_refused_costs_no_other_of_its_commit(tmp_path):
    async with database(tmp_path) as store:
        store.writer.extend(timeline_pieces, "rtc_1", 0, Json.of([0]))
        await store.write(lambda _: None)
        store.writer.extend(timeline_pieces, "rtc_1", 0, Json.of(["again"]))
        store.writer.extend(timeline_pieces, "rtc_1", 1, Json.of([1]))
        store.writer.extend(timeline_pieces, "rtc_2", 0, Json.of([0]))
        await store.write(lambda _: None)
        assert await pieces(store) == [("rtc_1", 0, [[0]]), ("rtc_1", 1, [[1]]), ("rtc_2", 0, [[0]])]
        assert store.writer.lost == 1


async def test_entries_are_given_up_before_work_is(tmp_path):
    limits = WriterLimits(group_s=0.001, lazy_s=60.0, waiting=20)
    async with database(tmp_path, limits=limits) as store:
        for number in range(15):
            store.writer.extend(timeline_pieces, "rtc_1", number, Json.of([number]))
        assert (store.writer.waiting, store.writer.lost) == (10, 5)
        await store.write(dialog("rtc_1"))
        ((_, _, entries),) = await pieces(store)
        assert entries == [[number] for number in range(10)]
