"""Recordings' files and rows: what is in them, who may see them, how long they stay, what a full disk does."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import struct
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from offhook.audio.stereo_wav import HEADER_SIZE
from offhook.calls.recording import Recording, RecordingState
from offhook.store import Database
from offhook.store.recording_file import RecordingFile, mend
from offhook.store.recordings import DAY_S, MAX_BACKLOG, RecordingSettings, RecordingStore
from testbed.database import opened_database

SECOND = 8000
HEARD, SENT = b"\x11" * SECOND, b"\x22" * SECOND


class Wall:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class Kept:
    """A store of recordings in a folder, and what was told of them."""

    def __init__(self, database: Database, folder: Path, clock: Wall, *, min_free: int = 0) -> None:
        self.over: asyncio.Queue[tuple[Recording, str]] = asyncio.Queue()
        self.interrupted: list[Recording] = []
        self.folder = folder
        self.counted: list[RecordingState] = []
        self.store = RecordingStore(
            database,
            RecordingSettings(folder, 30, min_free),
            clock,
            on_interrupted=self.interrupted.append,
            on_over=lambda recording: self.counted.append(recording.state),
        )

    async def record(self, call_id: str, *, seconds: int = 2) -> tuple[Recording, str]:
        sink = self.store.begin(
            call_id, "proj_a", "PCMU", lambda recording, trouble: self.over.put_nowait((recording, trouble))
        )
        for _ in range(seconds):
            sink.write(HEARD, SENT)
        sink.end()
        async with asyncio.timeout(30):
            return await self.over.get()


@pytest.fixture
def clock() -> Wall:
    return Wall()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened_database(tmp_path) as database:
        yield database


@pytest.fixture
async def kept(database: Database, tmp_path: Path, clock: Wall) -> AsyncIterator[Kept]:
    kept = Kept(database, tmp_path / "recordings", clock)
    await kept.store.start("http://127.0.0.1:8080", "u0")
    yield kept
    await kept.store.close()


def call_of(node: str) -> str:
    return f"rtc_{node}_{'a' * 32}"


def data_size(file: bytes) -> int:
    return int(struct.unpack("<I", file[HEADER_SIZE - 4 : HEADER_SIZE])[0])


async def test_both_sides_are_in_the_file(kept: Kept) -> None:
    recording, trouble = await kept.record("rtc_1")
    assert trouble == ""
    assert recording.state is RecordingState.SAVED
    assert kept.counted == [RecordingState.SAVED]
    assert (recording.duration_ms, recording.bytes) == (2000, HEADER_SIZE + 4 * SECOND)
    path = kept.store.file_of(recording)
    assert path.name == f"{recording.id}.wav"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    file = path.read_bytes()
    assert data_size(file) == 4 * SECOND == len(file) - HEADER_SIZE
    assert file[HEADER_SIZE:] == b"\x11\x22" * 2 * SECOND


async def test_another_project_does_not_find_it(kept: Kept) -> None:
    recording, _ = await kept.record("rtc_1")
    assert await kept.store.find("proj_a", "rtc_1") == recording
    assert await kept.store.find("proj_b", "rtc_1") is None
    assert await kept.store.find("proj_a", "rtc_2") is None


async def test_one_that_goes_on_is_found_with_its_length(kept: Kept) -> None:
    sink = kept.store.begin("rtc_1", "proj_a", "PCMA", lambda *_: None)
    sink.write(HEARD, SENT)
    async with asyncio.timeout(30):
        while sink.recording.duration_ms < 1000:
            await asyncio.sleep(0.005)
    sink.mark(RecordingState.PAUSED)
    found = await kept.store.find("proj_a", "rtc_1")
    assert found is not None
    assert (found.state, found.duration_ms, found.ended_at) == (RecordingState.PAUSED, 1000, None)
    assert await kept.store.find("proj_b", "rtc_1") is None


async def test_a_deleted_one_is_gone(kept: Kept) -> None:
    recording, _ = await kept.record("rtc_1")
    await kept.store.delete(recording)
    assert await kept.store.find("proj_a", "rtc_1") is None
    assert not kept.store.file_of(recording).exists()


async def test_old_ones_are_deleted_and_others_stay(kept: Kept, clock: Wall) -> None:
    clock.now = (await asyncio.to_thread(lambda: kept.folder.parent.stat())).st_mtime
    old, _ = await kept.record("rtc_1")
    live = kept.store.begin("rtc_2", "proj_a", "PCMU", lambda *_: None)
    (kept.folder / "notes.txt").write_text("somebody else's")
    clock.now += 29 * DAY_S
    assert await kept.store.expire() == 0
    assert kept.store.file_of(old).exists()
    clock.now += 2 * DAY_S
    assert await kept.store.expire() == 1
    assert await kept.store.find("proj_a", "rtc_1") is None
    assert not kept.store.file_of(old).exists()
    assert kept.store.file_of(live.recording).exists()
    assert (kept.folder / "notes.txt").exists()


async def test_a_full_disk_ends_it_and_says_so(
    database: Database, tmp_path: Path, clock: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(database, tmp_path / "full", clock, min_free=2**62)
    await kept.store.start("", "u0")
    recording, trouble = await kept.record("rtc_1")
    assert recording.state is RecordingState.FAILED
    assert kept.counted == [RecordingState.FAILED]
    assert trouble == "No space left on device"
    # The app is told why, and the operator where.
    assert f"{tmp_path / 'full'}: No space left on device" in caplog.text
    file = kept.store.file_of(recording).read_bytes()
    assert data_size(file) == 0 == len(file) - HEADER_SIZE
    await kept.store.close()


async def test_a_folder_that_cannot_be_made_is_said(database: Database, tmp_path: Path, clock: Wall) -> None:
    (tmp_path / "taken").write_text("a file")
    kept = Kept(database, tmp_path / "taken" / "recordings", clock)
    recording, trouble = await kept.record("rtc_1")
    assert (recording.state, recording.bytes) == (RecordingState.FAILED, 0)
    assert "Not a directory" in trouble
    await kept.store.close()


async def test_what_a_crash_has_cut_off_is_finished_at_the_next_start(
    database: Database, tmp_path: Path, clock: Wall
) -> None:
    kept = Kept(database, tmp_path / "recordings", clock)
    sink = kept.store.begin(call_of("u0"), "proj_a", "PCMU", lambda *_: None)
    sink.write(HEARD, SENT)
    async with asyncio.timeout(30):
        while sink.recording.duration_ms < 1000:
            await asyncio.sleep(0.005)
    path = kept.store.file_of(sink.recording)
    with path.open("ab") as file:
        file.write(b"\x33\x44" * SECOND + b"\x33")  # the header was not written any more
    next_run = Kept(database, tmp_path / "recordings", clock)
    await database.write(lambda connection: None)
    await next_run.store.start("", "u0")
    assert [recording.id for recording in next_run.interrupted] == [sink.recording.id]
    assert next_run.counted == [RecordingState.INTERRUPTED]
    found = next_run.interrupted[0]
    assert (found.state, found.duration_ms) == (RecordingState.INTERRUPTED, 2000)
    assert found.ended_at == found.started_at + 2.0
    written = path.read_bytes()
    assert found.bytes == len(written)
    assert data_size(written) == 4 * SECOND == len(written) - HEADER_SIZE
    await next_run.store.close()
    await kept.store.close()


def test_what_is_mended_late_is_kept_no_longer_for_it(tmp_path: Path) -> None:
    path = tmp_path / "rec_1.wav"
    file = RecordingFile(path, "PCMU", min_free=0)
    file.append(HEARD, SENT)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert mend(path) == (1000, HEADER_SIZE + 2 * SECOND)
    assert path.stat().st_mtime == 1_700_000_000
    file.close()


async def test_a_recording_of_a_living_node_is_left_alone(
    database: Database, tmp_path: Path, clock: Wall
) -> None:
    """Nodes may share a database and a folder, or have folders of the same name."""
    kept = Kept(database, tmp_path / "recordings", clock)
    sink = kept.store.begin(call_of("u0"), "proj_a", "PCMU", lambda *_: None)
    sink.write(HEARD, SENT)
    async with asyncio.timeout(30):
        while sink.recording.duration_ms < 1000:
            await asyncio.sleep(0.005)
    path = kept.store.file_of(sink.recording)
    with path.open("ab") as file:
        file.write(b"\x33")  # it is just being written
    written = path.read_bytes()
    await database.write(lambda connection: None)
    for node in ("u1", "u", ""):
        other = Kept(database, tmp_path / "recordings", clock)
        await other.store.start("", node)
        assert other.interrupted == []
        found = await other.store.find("proj_a", sink.recording.call_id)
        assert found is not None
        assert found.state is RecordingState.RECORDING
        assert path.read_bytes() == written
        await other.store.close()
    await kept.store.close()


async def test_one_that_nobody_finishes_is_forgotten_at_last(
    database: Database, tmp_path: Path, clock: Wall
) -> None:
    """Its node was renamed, or never started again."""
    gone = Kept(database, tmp_path / "recordings", clock)
    call_id = call_of("gone")
    gone.store.begin(call_id, "proj_a", "PCMU", lambda *_: None)
    await database.write(lambda connection: None)
    kept = Kept(database, tmp_path / "recordings", clock)
    await kept.store.start("", "u0")
    clock.now += 29 * DAY_S
    await kept.store.expire()
    assert await kept.store.find("proj_a", call_id) is not None
    clock.now += 3 * DAY_S
    await kept.store.expire()
    assert await kept.store.find("proj_a", call_id) is None
    await kept.store.close()
    await gone.store.close()


async def test_a_database_that_cannot_be_read_does_not_keep_a_node_from_starting(
    database: Database, tmp_path: Path, clock: Wall
) -> None:
    await database.write(lambda connection: connection.execute(text("DROP TABLE recordings")))
    kept = Kept(database, tmp_path / "recordings", clock)
    await kept.store.start("", "u0")
    await kept.store.close()


async def test_what_is_open_at_the_end_is_saved(kept: Kept) -> None:
    sink = kept.store.begin(
        "rtc_1", "proj_a", "PCMU", lambda recording, trouble: kept.over.put_nowait((recording, trouble))
    )
    sink.write(HEARD, SENT)
    await kept.store.close()
    recording, trouble = kept.over.get_nowait()
    assert (recording.state, recording.duration_ms, trouble) == (RecordingState.SAVED, 1000, "")


def test_the_header_holds_at_every_moment(tmp_path: Path) -> None:
    path = tmp_path / "rec_1.wav"
    file = RecordingFile(path, "PCMA", min_free=0)
    for seconds in range(4):
        content = path.read_bytes()
        assert data_size(content) == 2 * seconds * SECOND == len(content) - HEADER_SIZE
        file.append(HEARD, SENT)
    file.close()


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "rec_1.wav"
    path.write_bytes(b"something else, and long enough that a header would fit into it" * 2)
    before = path.read_bytes()
    assert mend(path) is None
    assert path.read_bytes() == before
    assert mend(tmp_path / "rec_2.wav") is None


def test_a_disk_that_takes_half_a_piece_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "rec_1.wav"
    file = RecordingFile(path, "PCMU", min_free=0)
    file.append(HEARD, SENT)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.size + SECOND // 2, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.append(HEARD, SENT)
        cut_off = path.read_bytes()
        assert data_size(cut_off) == 2 * SECOND < len(cut_off) - HEADER_SIZE
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    file.close()
    assert (file.duration_ms, path.stat().st_size) == (1000, HEADER_SIZE + 2 * SECOND)


async def test_a_disk_that_stands_still_costs_the_recording_and_nothing_else(kept: Kept) -> None:
    """It writes nothing any more; what waits for it has a limit, and the loop never does."""
    stands, goes = threading.Event(), threading.Event()

    def stand_still() -> None:
        stands.set()
        goes.wait(30)

    kept.store._thread.do(stand_still)
    sink = kept.store.begin(
        "rtc_1", "proj_a", "PCMU", lambda recording, trouble: kept.over.put_nowait((recording, trouble))
    )
    assert await asyncio.to_thread(stands.wait, 10)
    for _ in range(MAX_BACKLOG + 10):
        sink.write(HEARD, SENT)
    goes.set()
    async with asyncio.timeout(30):
        recording, trouble = await kept.over.get()
    assert (recording.state, recording.duration_ms) == (RecordingState.FAILED, MAX_BACKLOG * 1000)
    assert trouble == f"the disk is {MAX_BACKLOG} s behind"


async def test_what_is_over_is_freed_without_the_collector(kept: Kept) -> None:
    over = kept.over
    sink = kept.store.begin(
        "rtc_1", "proj_a", "PCMU", lambda recording, trouble: over.put_nowait((recording, trouble))
    )
    sink.write(HEARD, SENT)
    sink.end()
    async with asyncio.timeout(30):
        await over.get()
    await kept.record("rtc_2")  # the thread and the loop have let go of what they did before
    held = weakref.ref(sink)
    gc.disable()
    try:
        del sink
        async with asyncio.timeout(30):
            while held() is not None:
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
