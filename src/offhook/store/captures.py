"""Packets of calls: files that a thread writes, how much may wait for it, and how long they are kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from offhook.calls.packet_capture import Kept
from offhook.calls.packets import HEADER, datagram
from offhook.clock import Clock

from .capture_file import AppendedFile, read_messages, read_pieces
from .file_thread import FileThread

__all__ = ["MAX_BYTES", "CaptureStore", "KeptCapture"]

log = logging.getLogger("offhook.store")

DAY_S: Final = 86_400.0
LOOK_EVERY_S: Final = 3_600.0
MAX_BYTES: Final = 100_000_000
"Of one call: the packets of an hour are some 80 MB."
MAX_MESSAGES: Final = 1_000_000
"Bytes of one call's messages with keys in them."
MAX_WAITING: Final = 2_000_000
"Bytes of one call that may wait for a slow disk: some 45 s of a call."
MAX_WAITING_OF_ALL: Final = 64_000_000
"The same of all calls together."
BATCH: Final = 50
"Packets that are handed to the thread together: half a second of a call."
BATCH_BYTES: Final = 50_000
"What is handed on at once, however few packets that is."
_OVERHEAD: Final = 16 + 40 + 8
"What a record, IP and UDP add to a datagram, at most."
_PACKETS, _MESSAGES = ".pcap", ".messages"


@dataclass(frozen=True, slots=True)
class KeptCapture:
    """What is there of one call. Reading blocks."""

    packets: Path | None
    messages: list[str] | None
    "SIP messages with media keys; `None`: such are not kept."

    def pieces(self) -> Iterator[bytes]:
        """Return the packets' file."""
        return read_pieces(self.packets) if self.packets is not None else iter(())


class CaptureStore:
    """Keeps the packets of calls whose project wants it; the calls' `Captures`."""

    def __init__(self, folder: Path, clock: Clock, *, keep_days: float, min_free: int) -> None:
        """`keep_days` as for calls, 0: for ever; `min_free` are bytes that are left free on the disk."""
        self._folder = folder
        self._clock = clock
        self._keep_days = keep_days
        self._min_free = min_free
        self._thread: FileThread | None = None
        self._open: dict[str, _Sink] = {}
        self._looking: asyncio.Task[None] | None = None
        self._backlog = _Backlog()

    def start(self) -> None:
        """Look for what is too old from now on."""
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """End and write what is still open."""
        if self._looking is not None:
            self._looking.cancel()
        for sink in list(self._open.values()):
            sink.end()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.close)
            await asyncio.sleep(0)  # the thread's last words are on the loop by now

    def begin(
        self,
        call_id: str,
        host: str,
        *,
        keys: bool,
        on_full: Callable[[int], None],
        on_over: Callable[[Kept], None],
    ) -> _Sink:
        if self._thread is None:
            self._thread = FileThread("capture")

        def over(kept: Kept) -> None:
            self._open.pop(call_id, None)
            if kept.trouble:
                log.warning(
                    "packets of a call were lost: %s: %s", self._folder, kept.trouble,
                    extra={"event": "capture.lost", "call_id": call_id, "lost": kept.lost},
                )  # fmt: skip
            on_over(kept)

        files = _Files(
            self._path(call_id, _PACKETS),
            self._path(call_id, _MESSAGES) if keys else None,
            host,
            self._min_free,
        )
        sink = _Sink(files, self._thread, self._clock, self._backlog, on_full, over)
        self._open[call_id] = sink
        return sink

    def find(self, call_id: str) -> KeptCapture:
        """Return what is there of a call that the asker may see. Blocks."""
        if re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", call_id) is None:
            return KeptCapture(None, None)
        packets = self._path(call_id, _PACKETS)
        return KeptCapture(
            packets if packets.is_file() else None, read_messages(self._path(call_id, _MESSAGES))
        )

    async def expire(self) -> int:
        """Delete what was written last longer ago than calls are kept; return how many files that were."""
        if not self._keep_days:
            return 0
        before = self._clock.wall() - self._keep_days * DAY_S
        return await asyncio.to_thread(_remove_older, self._folder, before, set(self._open))

    def _path(self, call_id: str, kind: str) -> Path:
        return self._folder / f"{call_id}{kind}"

    async def _look(self) -> None:
        while True:
            try:
                if removed := await self.expire():
                    log.info("deleted %d old files of packets", removed, extra={"event": "capture.expired"})
            except Exception:
                log.exception("old packets could not be deleted", extra={"event": "capture.bug"})
            await asyncio.sleep(LOOK_EVERY_S)


@dataclass(slots=True)
class _Backlog:
    """Bytes that wait. Each figure has one writer, the loop or the thread, so that neither waits for the other."""

    handed: int = 0
    done: int = 0

    @property
    def waiting(self) -> int:
        return self.handed - self.done


_Packet = tuple[float, bool, int, bytes, tuple[Any, ...]]


class _Sink:
    """One call's packets on their way to the disk, as the loop sees them."""

    def __init__(
        self,
        files: _Files,
        thread: FileThread,
        clock: Clock,
        of_all: _Backlog,
        on_full: Callable[[int], None],
        on_over: Callable[[Kept], None],
    ) -> None:
        self._files = files
        self._thread = thread
        self._wall = clock.wall
        self._of_all = of_all
        self._of_call = _Backlog()
        self._on_full = on_full
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()
        self._batch: list[_Packet] = []
        self._batched = 0
        self._messages = 0
        self._lost = 0
        self._left_out = 0
        self._over = False
        thread.do(files.begin)

    def packet(self, sent: bool, port: int, data: bytes, peer: tuple[Any, ...]) -> None:
        if self._over:
            return
        size, mine, of_all = len(data) + _OVERHEAD, self._of_call, self._of_all
        if mine.handed + size > MAX_BYTES:
            self._left_out += 1
            if self._left_out == 1:
                self._on_full(MAX_BYTES)
            return
        if mine.waiting + size > MAX_WAITING or of_all.waiting + size > MAX_WAITING_OF_ALL:
            self._lost += 1
            return
        mine.handed += size
        of_all.handed += size
        self._batch.append((self._wall(), sent, port, data, peer))
        self._batched += size
        if len(self._batch) >= BATCH or self._batched >= BATCH_BYTES:
            self._hand_on()

    def message(self, text: str) -> None:
        self._messages += len(text)
        if not self._over and self._messages <= MAX_MESSAGES:
            self._thread.do(partial(self._files.add_message, text))

    def end(self) -> None:
        if self._over:
            return
        self._over = True
        self._hand_on()
        self._thread.do(self._close)

    def _hand_on(self) -> None:
        batch, self._batch, self._batched = self._batch, [], 0
        self._thread.do(partial(self._write, batch))

    def _closed(self, packets: int, lost: int, trouble: str) -> None:
        if self._lost and not trouble:
            trouble = "the disk is too slow"
        self._on_over(Kept(packets, self._lost + lost, self._left_out, trouble))
        self._on_over = self._on_full = _told  # they hold the call, which is not to wait for the collector

    # In the thread.

    def _write(self, batch: list[_Packet]) -> None:
        try:
            self._files.add_packets(batch)
        finally:
            size = sum(len(packet[3]) + _OVERHEAD for packet in batch)
            self._of_call.done += size
            self._of_all.done += size

    def _close(self) -> None:
        files = self._files
        files.close()
        with contextlib.suppress(RuntimeError):  # the loop has gone
            self._loop.call_soon_threadsafe(self._closed, files.packets, files.lost, files.trouble)


class _Files:
    """A call's files as the thread sees them. Never raises; a disk that works again is written to again."""

    def __init__(self, packets: Path, messages: Path | None, host: str, min_free: int) -> None:
        self.packets = self.lost = 0
        self.trouble = ""
        self._paths = packets, messages
        self._host = host
        self._min_free = min_free
        self._packets: AppendedFile | None = None
        self._messages: AppendedFile | None = None

    def begin(self) -> None:
        try:
            self._open()
        except OSError as error:
            self._fail(error)

    def add_packets(self, batch: list[_Packet]) -> None:
        try:
            data = b"".join(self._record(*packet) for packet in batch)
            self._open().append(data)
        except (OSError, ValueError) as error:
            self.lost += len(batch)
            self._fail(error)
        else:
            self.packets += len(batch)

    def add_message(self, text: str) -> None:
        try:
            self._open()
            if self._messages is not None:
                self._messages.append(json.dumps(text).encode() + b"\n")
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        for file in (self._packets, self._messages):
            if file is not None:
                try:
                    file.close()
                except OSError as error:
                    self._fail(error)
        self._packets = self._messages = None

    def _open(self) -> AppendedFile:
        packets, messages = self._paths
        if self._packets is None:
            self._packets = AppendedFile(packets, HEADER, min_free=self._min_free)
        if self._messages is None and messages is not None:
            self._messages = AppendedFile(messages, b"", min_free=self._min_free)
        return self._packets

    def _record(self, at: float, sent: bool, port: int, data: bytes, peer: tuple[Any, ...]) -> bytes:
        own, other = (self._host, port), (str(peer[0]), int(peer[1]))
        return datagram(at, own, other, data) if sent else datagram(at, other, own, data)

    def _fail(self, error: Exception) -> None:
        # The app reads it, too: where the node keeps its files is the operator's affair, who has the log.
        self.trouble = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _told(what: object) -> None:
    return


def _remove_older(folder: Path, before: float, but: set[str]) -> int:
    removed = 0
    for path in (*folder.glob(f"rtc_*{_PACKETS}"), *folder.glob(f"rtc_*{_MESSAGES}")):
        with contextlib.suppress(OSError):
            if path.stem not in but and path.stat().st_mtime < before:
                path.unlink()
                removed += 1
    return removed
