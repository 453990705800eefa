"""The file of one recording, as the thread that writes it sees it. Everything in here may block."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from offhook.audio.frames import SAMPLE_RATE, Law
from offhook.audio.stereo_wav import BLOCK, HEADER_SIZE, MAX_DATA, create_header, interleave, is_header

__all__ = ["RecordingFile", "mend"]


class RecordingFile:
    """
    A WAV file that can be played at any time while it grows, and after a crash (see `stereo_wav`).

    All raise `OSError`; what was written before stays whole then.
    """

    def __init__(self, path: Path, law: Law, *, min_free: int) -> None:
        """`min_free`: bytes that must be left on the disk for others."""
        self._law = law
        self._min_free = min_free
        self._data = 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self._write_header()
        except OSError:
            os.close(self._descriptor)
            path.unlink()
            raise

    @property
    def size(self) -> int:
        return HEADER_SIZE + self._data

    @property
    def duration_ms(self) -> int:
        return self._data * 1000 // (BLOCK * SAMPLE_RATE)

    def append(self, heard: bytes, sent: bytes) -> None:
        disk = os.fstatvfs(self._descriptor)
        if disk.f_bavail * disk.f_frsize < self._min_free or self._data + BLOCK * len(heard) > MAX_DATA:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = interleave(heard, sent)
        _write(self._descriptor, data, self.size)
        self._data += len(data)
        self._write_header()

    def close(self) -> None:
        """Let go of it. What was written in part is cut off."""
        try:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
        finally:
            os.close(self._descriptor)

    def _write_header(self) -> None:
        _write(self._descriptor, create_header(self._law, self._data), 0)


def mend(path: Path) -> tuple[int, int] | None:
    """
    Make the header of a file that a crash has cut off tell of all that is there.

    Return its duration in ms and its size; `None` when it is gone or has no header. Raises `OSError`.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        law = is_header(os.pread(descriptor, HEADER_SIZE, 0))
        if law is None:
            return None
        before = os.fstat(descriptor)
        data = min(before.st_size - HEADER_SIZE, MAX_DATA) // BLOCK * BLOCK
        if data < 0:
            return None
        os.ftruncate(descriptor, HEADER_SIZE + data)
        _write(descriptor, create_header(law, data), 0)
        # How long it is kept counts from when it was recorded, however late the next start is.
        os.utime(descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(descriptor)
    return data * 1000 // (BLOCK * SAMPLE_RATE), HEADER_SIZE + data


def _write(descriptor: int, data: bytes, at: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], at + written)
