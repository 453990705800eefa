"""Recordings: their files, written by a thread of their own, their rows, and how long they are kept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy import and_, delete, or_, select
from sqlalchemy.exc import SQLAlchemyError

from offhook import ids
from offhook.audio.frames import Law
from offhook.calls.past import PastUnavailable
from offhook.calls.recording import Recording, RecordingState
from offhook.clock import Clock

from . import schema
from .database import Database, upsert
from .file_thread import FileThread
from .recording_file import RecordingFile, mend
from .writer import NotStoredError

__all__ = ["RecordingSettings", "RecordingStore"]

log = logging.getLogger("offhook.store")

DAY_S: Final = 86_400.0
LOOK_EVERY_S: Final = 3_600.0
"Between two looks for recordings that have been kept for long enough."
MAX_BACKLOG: Final = 30
"Seconds of one recording that may wait for a slow disk."

_table = schema.recordings


@dataclass(frozen=True, slots=True)
class RecordingSettings:
    folder: Path
    keep_days: float = 30.0
    "0: for ever."
    min_free: int = 0
    "Bytes that recordings leave free on their disk."


class RecordingStore:
    """
    Keeps what calls record; the calls' `Recordings`.

    `on_interrupted` is told of what an earlier run of the node has left unfinished, once `start` was called; `on_over`
    of every recording whose end is known, those among them.
    """

    def __init__(
        self,
        database: Database,
        settings: RecordingSettings,
        clock: Clock,
        *,
        on_interrupted: Callable[[Recording], None],
        on_over: Callable[[Recording], None],
    ) -> None:
        self._base_url = ""
        self._database = database
        self._settings = settings
        self._clock = clock
        self._on_interrupted = on_interrupted
        self._on_over = on_over
        self._open: dict[str, _Sink] = {}
        self._thread = FileThread("recorder")
        self._looking: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self, base_url: str, node: str) -> None:
        """
        Finish what a crash of this node has cut off, and look for what is too old from now on.

        Links begin with `base_url`. No other process may be this node; another may share database and folder.
        """
        self._base_url = f"{base_url.rstrip('/')}/v1"
        await self._recover(node)
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """End and write what is still open."""
        if self._looking is not None:
            self._looking.cancel()
        for sink in list(self._open.values()):
            sink.end()
        await asyncio.to_thread(self._thread.close)
        await asyncio.sleep(0)  # the thread's last words are on the loop by now
        while self._ending:
            await asyncio.wait(self._ending)

    def url(self, call_id: str) -> str:
        return f"{self._base_url}/realtime/calls/{call_id}/recording.wav"

    def begin(
        self, call_id: str, project_id: str, law: Law, on_over: Callable[[Recording, str], None]
    ) -> _Sink:
        recording = Recording(
            ids.opaque_id("rec"), call_id, project_id, RecordingState.RECORDING, self._clock.wall()
        )
        sink = _Sink(recording, law, self._path(recording.id), self._settings.min_free, self._thread)
        sink.on_change = self._save
        sink.on_closed = lambda trouble: self._closed(sink, trouble, on_over)
        self._open[call_id] = sink
        self._save(recording)
        return sink

    async def find(self, project_id: str | None, call_id: str) -> Recording | None:
        """
        Return a call's recording; `None` when there is none, or it is another project's than the one that is named.

        Raises `PastUnavailable`.
        """
        if (sink := self._open.get(call_id)) is not None:
            found: Recording | None = sink.recording
        else:
            wanted = select(_table).where(_table.c.call_id == call_id)
            rows = await self._database.read_kept(lambda c: c.execute(wanted).mappings().all())
            found = _recording(rows[0]) if rows else None
        return found if found is not None and project_id in (None, found.project_id) else None

    def file_of(self, recording: Recording) -> Path:
        return self._path(recording.id)

    async def delete(self, recording: Recording) -> None:
        """Remove file and row. Only what is over may be deleted. Raises `PastUnavailable`."""
        gone = delete(_table).where(_table.c.id == recording.id)
        try:
            await asyncio.to_thread(self._path(recording.id).unlink, missing_ok=True)
            await self._database.write(lambda connection: connection.execute(gone))
        except (OSError, NotStoredError) as error:
            raise PastUnavailable(f"{recording.id} cannot be deleted: {error}") from error

    async def expire(self) -> int:
        """Delete what ended longer ago than recordings are kept; return how many files that were."""
        if not self._settings.keep_days:
            return 0
        before = self._clock.wall() - self._settings.keep_days * DAY_S
        # What has no end is of a node that never started again, or of one that still records.
        never_ended = and_(_table.c.ended_at.is_(None), _table.c.started_at < before - DAY_S)
        gone = delete(_table).where(or_(_table.c.ended_at < before, never_ended))
        open_now = {sink.recording.id for sink in self._open.values()}
        removed = await asyncio.to_thread(_remove_older, self._settings.folder, before, open_now)
        with contextlib.suppress(NotStoredError):  # said by the writer; the next look finds them again
            await self._database.write(lambda connection: connection.execute(gone))
        return removed

    def _path(self, recording_id: str) -> Path:
        return self._settings.folder / f"{recording_id}.wav"

    def _save(self, recording: Recording) -> asyncio.Future[None]:
        written = asyncio.get_running_loop().create_future()
        row = _row(recording, self._path(recording.id))
        self._database.writer.put(lambda connection: upsert(connection, _table, row), written=written)
        written.add_done_callback(lambda done: done.exception())  # the writer says it
        return written

    def _closed(self, sink: _Sink, trouble: str, on_over: Callable[[Recording, str], None]) -> None:
        state = RecordingState.FAILED if trouble else RecordingState.SAVED
        sink.recording = replace(sink.recording, state=state, ended_at=self._clock.wall())
        sink.on_change = sink.on_closed = _told  # they hold the sink, which is not to wait for the collector
        if trouble:
            log.error(
                "a recording ends before its time: %s: %s",
                self._settings.folder,
                trouble,
                extra={"event": "recording.failed", "call_id": sink.recording.call_id},
            )
        task = asyncio.get_running_loop().create_task(self._finish(sink, trouble, on_over))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _finish(self, sink: _Sink, trouble: str, on_over: Callable[[Recording, str], None]) -> None:
        """Tell of it once it can be found after a crash, too."""
        with contextlib.suppress(NotStoredError):
            await self._save(sink.recording)
        self._open.pop(sink.recording.call_id, None)
        self._on_over(sink.recording)
        on_over(sink.recording, trouble)

    async def _recover(self, node: str) -> None:
        unfinished = select(_table).where(
            _table.c.state.in_([state.value for state in RecordingState if not state.is_over])
        )
        try:
            rows = await self._database.read(
                lambda connection: connection.execute(unfinished).mappings().all()
            )
        except SQLAlchemyError:
            log.exception("what a crash left cannot be read", extra={"event": "recording.lost"})
            return
        for row in rows:
            recording = _recording(row)
            if not ids.is_call_id(recording.call_id, node) or row["path"] != str(self._path(recording.id)):
                continue  # another node's
            try:
                found = await asyncio.to_thread(mend, self._path(recording.id))
            except OSError as error:
                log.error("%s cannot be mended: %s", row["path"], error, extra={"event": "recording.lost"})
                continue
            duration_ms, size = found or (0, 0)
            recording = replace(
                recording,
                state=RecordingState.INTERRUPTED,
                ended_at=recording.started_at + duration_ms / 1000,
                duration_ms=duration_ms,
                bytes=size,
            )
            self._save(recording)
            self._on_over(recording)
            if size:
                self._on_interrupted(recording)

    async def _look(self) -> None:
        while True:
            try:
                if removed := await self.expire():
                    log.info("deleted %d old recordings", removed, extra={"event": "recording.expired"})
            except Exception:
                log.exception("old recordings could not be deleted", extra={"event": "recording.bug"})
            await asyncio.sleep(LOOK_EVERY_S)


class _Sink:
    """One recording on its way to its file: what the loop knows of it, and the thread's end of it."""

    def __init__(self, recording: Recording, law: Law, path: Path, min_free: int, thread: FileThread) -> None:
        self.recording = recording
        self.on_change: Callable[[Recording], object]
        self.on_closed: Callable[[str], None]
        self._law = law
        self._path = path
        self._min_free = min_free
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._backlog = 0
        self._over = False
        # The thread's.
        self._file: RecordingFile | None = None
        self._trouble = ""
        thread.do(self._create)

    def write(self, heard: bytes, sent: bytes) -> None:
        if self._over:
            return
        if self._backlog >= MAX_BACKLOG:
            self._end(f"the disk is {MAX_BACKLOG} s behind")
            return
        self._backlog += 1
        self._thread.do(lambda: self._append(heard, sent))

    def mark(self, state: RecordingState) -> None:
        if not self._over:
            self.recording = replace(self.recording, state=state)
            self.on_change(self.recording)

    def end(self) -> None:
        self._end("")

    def _end(self, trouble: str) -> None:
        if not self._over:
            self._over = True
            self._thread.do(lambda: self._close(trouble))

    def _told(self, duration_ms: int, size: int, trouble: str) -> None:
        self._backlog -= 1
        self.recording = replace(self.recording, duration_ms=duration_ms, bytes=size)
        if trouble:
            self._end(trouble)

    # In the thread.

    def _create(self) -> None:
        try:
            self._file = RecordingFile(self._path, self._law, min_free=self._min_free)
        except OSError as error:
            self._fail(error)

    def _append(self, heard: bytes, sent: bytes) -> None:
        if self._file is not None and not self._trouble:
            try:
                self._file.append(heard, sent)
            except OSError as error:
                self._fail(error)
        duration_ms, size = self._measure()
        self._tell(lambda: self._told(duration_ms, size, self._trouble))

    def _fail(self, error: OSError) -> None:
        # The app reads it, too: where the node keeps its files is the operator's affair, who has the log.
        self._trouble = error.strerror or type(error).__name__

    def _close(self, trouble: str) -> None:
        duration_ms, size = self._measure()
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self._fail(error)
        said = trouble or self._trouble
        self._tell(lambda: self._closed(duration_ms, size, said))

    def _closed(self, duration_ms: int, size: int, trouble: str) -> None:
        self.recording = replace(self.recording, duration_ms=duration_ms, bytes=size)
        self.on_closed(trouble)

    def _measure(self) -> tuple[int, int]:
        return (self._file.duration_ms, self._file.size) if self._file is not None else (0, 0)

    def _tell(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has gone
            self._loop.call_soon_threadsafe(what)


def _told(what: object) -> None:
    return


def _remove_older(folder: Path, before: float, but: set[str]) -> int:
    removed = 0
    for path in folder.glob("rec_*.wav"):
        with contextlib.suppress(OSError):
            if path.stem not in but and path.stat().st_mtime < before:
                path.unlink()
                removed += 1
    return removed


def _row(recording: Recording, path: Path) -> dict[str, Any]:
    return {
        "id": recording.id,
        "call_id": recording.call_id,
        "project_id": recording.project_id,
        "path": str(path),
        "state": recording.state.value,
        "started_at": recording.started_at,
        "ended_at": recording.ended_at,
        "duration_ms": recording.duration_ms,
        "bytes": recording.bytes,
    }


def _recording(row: Any) -> Recording:
    return Recording(
        row["id"],
        row["call_id"],
        row["project_id"],
        RecordingState(row["state"]),
        row["started_at"],
        row["ended_at"],
        int(row["duration_ms"] or 0),
        int(row["bytes"] or 0),
    )
