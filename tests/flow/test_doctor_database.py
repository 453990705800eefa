"""The doctor and the database: what is wrong with the file, and what was made by API and stands in it alone."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from offhook.cli.doctor.database import find_database, find_stored
from offhook.cli.doctor.facts import Facts
from offhook.cli.doctor.judge import judge
from offhook.cli.doctor.machine import find_addresses
from offhook.cli.doctor.network import try_webhooks
from offhook.cli.doctor.verdict import Finding
from offhook.config import Config
from offhook.store import Database
from offhook.store.endpoints import StoredEndpoints
from offhook.store.projects import StoredTenants
from offhook.tenants import WebhookEndpoint

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
PASSWORD = "digest-password-73"


def config(folder: Path, **tables: Any) -> Config:
    return Config.model_validate({"server": {"data_dir": folder}, **tables})


def found(config: Config) -> list[Finding]:
    """The findings about the file, without those about the disk."""
    findings = judge(Facts(database=find_database(config)))
    return [one for one in findings if "are free" not in one.text]


@pytest.fixture
async def kept(tmp_path: Path) -> Path:
    """A data dir with a database of this version."""
    await (await Database.open("sqlite", tmp_path)).close()
    return tmp_path


async def make(
    folder: Path, projects: Mapping[str, Mapping[str, Any]], endpoints: Mapping[str, str] | None = None
) -> None:
    """Keep projects with their settings, and for some of them an endpoint, as the API does."""
    database = await Database.open("sqlite", folder)
    for project, settings in projects.items():
        assert await StoredTenants(database).save_project(project, "", 1.0, settings)
    for project, url in (endpoints or {}).items():
        endpoint = WebhookEndpoint(f"wh_{project}", url, (SECRET,), configured=False)
        assert await StoredEndpoints(database).save(project, endpoint)
    await database.close()


# The file.


async def test_one_in_order_is_left_as_it_was(kept: Path) -> None:
    before = {file.name: file.read_bytes() for file in kept.iterdir()}
    (finding,) = found(config(kept))
    assert (finding.level, "can be used" in finding.text) == ("ok", True)
    assert find_stored(config(kept), find_database(config(kept))).facts is not None
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == before


async def test_what_a_killed_node_left_unwritten_stays_for_the_next_start(kept: Path) -> None:
    """Its `-wal` file is not moved into the database by whoever only looks."""
    path = kept / "offhook.db"
    copy = kept / "killed"
    copy.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as writing:
        writing.execute("PRAGMA journal_mode = WAL")
        writing.execute("INSERT INTO projects VALUES ('proj_x', '', 1.0, '{}')")
        writing.commit()
        for name in ("offhook.db", "offhook.db-wal"):
            (copy / name).write_bytes((kept / name).read_bytes())
    left = (copy / "offhook.db-wal").read_bytes()
    assert left
    assert [one.level for one in found(config(copy))] == ["ok"]
    assert (copy / "offhook.db-wal").read_bytes() == left


@pytest.mark.parametrize("waits", ["beside a node", "alone"])
async def test_a_lock_that_another_program_keeps(
    kept: Path, monkeypatch: pytest.MonkeyPatch, waits: str
) -> None:
    monkeypatch.setattr("offhook.cli.doctor.database.BUSY_MS", 50)
    with contextlib.closing(sqlite3.connect(kept / "offhook.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        if waits == "beside a node":
            other.execute("INSERT INTO projects VALUES ('proj_x', '', 1.0, '{}')")
        (finding,) = found(config(kept))
        assert finding.level == "fault"
        assert "locked" in finding.text
        assert "End what holds it" in finding.remedy
    assert [one.level for one in found(config(kept))] == ["ok"]


async def test_a_program_that_lets_nobody_even_read(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offhook.cli.doctor.database.BUSY_MS", 50)
    with contextlib.closing(sqlite3.connect(kept / "offhook.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("INSERT INTO projects VALUES ('proj_x', '', 1.0, '{}')")
        (finding,) = found(config(kept))
        assert finding.level == "fault"
        assert "locked" in finding.text


async def test_damage_inside_a_file_that_opens(kept: Path) -> None:
    path = kept / "offhook.db"
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        for page in range(2, size // 4096, 3):
            file.seek(page * 4096)
            file.write(b"\xa5" * 512)
    (finding,) = found(config(kept))
    assert finding.level == "fault"
    assert "replaced by its copy" in finding.remedy


async def test_one_of_a_newer_version(kept: Path) -> None:
    with contextlib.closing(sqlite3.connect(kept / "offhook.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    (finding,) = found(config(kept))
    assert finding.level == "fault"
    assert "newer version of Offhook (revision 9999)" in finding.text
    assert find_stored(config(kept), find_database(config(kept))).facts is None, (
        "it may mean another thing there"
    )


# What was made by API.


def judged(config: Config) -> list[Finding]:
    return list(judge(Facts(stored=find_stored(config, find_database(config)).facts)))


async def test_a_projects_trunks_are_looked_at_wherever_it_was_made(tmp_path: Path) -> None:
    """From outside come calls of a trunk that the configuration does not have."""
    trunk = {"name": "carrier", "sources": ["198.51.100.0/24"]}
    await make(tmp_path, {"proj_made": {"trunks": [trunk]}})
    settings = config(tmp_path)
    stored = find_stored(settings, find_database(settings))
    whole = settings.model_copy(update={"projects": stored.projects})
    assert find_addresses(whole).outside == ("carrier (proj_made)",)
    (finding,) = judged(settings)
    assert "1 project, 0 webhook endpoints" in finding.text


async def test_a_project_that_this_configuration_cannot_have(tmp_path: Path) -> None:
    trunk = {"name": "t", "digest_user": "u", "digest_password": PASSWORD, "digest_algorithms": ["none"]}
    await make(tmp_path, {"proj_a": {"passthrough": "gone"}, "proj_b": {"trunks": [trunk]}, "proj_c": {}})
    good, one, other = judged(config(tmp_path))
    assert "1 project" in good.text
    assert (one.level, other.level) == ("fault", "fault")
    assert "proj_a" in one.text
    assert "'gone'" in one.text
    assert "proj_b" in other.text
    assert "digest_algorithms" in other.text
    assert PASSWORD not in other.text


async def test_a_project_that_the_configuration_has_too(tmp_path: Path) -> None:
    await make(tmp_path, {"proj_a": {}, "proj_b": {"numbers": ["+15550100"]}})
    has = [{"id": "proj_a"}, {"id": "proj_c", "numbers": ["15550100"]}]
    settings = config(tmp_path, projects=has)
    _, one, other = judged(settings)
    assert (one.level, other.level) == ("warning", "warning")
    assert "proj_a, made by API: its id" in one.text
    assert "'15550100' is that of proj_c" in other.text
    assert [table.id for table in find_stored(settings, find_database(settings)).projects] == ["proj_b"]


async def test_an_endpoint_may_point_where_deliveries_may(tmp_path: Path) -> None:
    """One of a configured project and one of a project that is gone are kept, too."""
    url = "http://127.0.0.1:1/hook"
    await make(tmp_path, {"proj_a": {}}, {"proj_a": url, "proj_x": url, "proj_gone": url})
    for allowed, kind in ((False, "refused"), (True, "connect")):
        settings = config(tmp_path, projects=[{"id": "proj_x"}], webhooks={"allow_loopback": allowed})
        made = find_stored(settings, find_database(settings)).endpoints
        tried, _ = await try_webhooks(settings, made, send=False)
        assert [(one.project, one.kind) for one in tried] == [("proj_a", kind), ("proj_x", kind)]
        assert all(one.remedy for one in judge(Facts(webhooks=tuple(tried))))
