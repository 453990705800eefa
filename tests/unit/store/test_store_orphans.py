"""What a crash leaves in the database, and who may take it up."""

import subprocess
import sys

import pytest

from offhook.calls.journal import CallTimes
from offhook.calls.timeline import TimelineEntry
from offhook.store.journal import StoreJournal
from offhook.store.node_lock import NodeLock
from offhook.store.orphans import find_orphans
from testbed.database import opened_database


def described(call_id, state):
    return {
        "id": call_id,
        "project_id": "proj",
        "state": state,
        "created_at": 1,
        "answered_at": None,
        "ended_at": None,
        "from": "a",
        "to": "b",
        "request_uri": "sip:proj@h",
        "sip_call_id": f"{call_id}@h",
        "carrier_call_id": None,
        "termination": None,
        "transport": None,
        "remote": None,
        "codec": None,
    }


@pytest.fixture
async def database(tmp_path):
    async with opened_database(tmp_path) as opened:
        yield opened


async def test_only_this_nodes_open_calls_and_dialogs_are_found(database):
    ours, other = StoreJournal(database.writer, "u0"), StoreJournal(database.writer, "u1")
    entry = TimelineEntry(1.0, "call", "INVITE", {})
    for journal, call_id, state, snapshot, entries in (
        (ours, "talking", "active", {"a": 1}, 2),
        (ours, "no dialog", "ringing", None, 0),
        (ours, "bye unanswered", "ended", {"b": 2}, 1),
        (ours, "over", "ended", None, 3),
        (other, "elsewhere", "active", {"c": 3}, 1),
    ):
        journal.save(described(call_id, state), CallTimes(1.5, None, None))
        for number in range(entries):
            journal.entry(call_id, number, 1.0, entry)
        journal.dialog(call_id, {"version": 0})
        journal.dialog(call_id, snapshot)
    ours.dialog("not saved", {"d": 4})
    for number in (2, 1):
        ours.refer({"call_id": "talking", "refer": number, "status": "pending"})
    await database.write(lambda connection: None)

    found = {orphan.call_id: orphan for orphan in await find_orphans(database, "u0")}
    assert set(found) == {"talking", "no dialog", "bye unanswered", "not saved"}
    assert {name: orphan.next_entry for name, orphan in found.items()} == {
        "talking": 2,
        "no dialog": 0,
        "bye unanswered": 1,
        "not saved": 0,
    }
    assert found["talking"].snapshot == {"a": 1}
    assert found["talking"].described["state"] == "active"
    assert found["talking"].times == CallTimes(1.5, None, None)
    assert [refer["refer"] for refer in found["talking"].refers] == [1, 2]
    assert found["no dialog"].snapshot is None
    assert found["not saved"].described is None


def test_two_processes_cannot_be_one_node(tmp_path):
    """The system frees the lock when its process is killed."""
    code = (
        "import pathlib, sys, time; from offhook.store.node_lock import NodeLock; "
        "lock = NodeLock(pathlib.Path(sys.argv[1]), 'u0'); print(lock.take(), flush=True); time.sleep(60)"
    )
    lock = NodeLock(tmp_path, "u0")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert not lock.take()
        other = NodeLock(tmp_path, "u1")
        assert other.take()
        other.release()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert lock.take()
    lock.release()
