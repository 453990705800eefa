"""The files of one call's packets, as the thread that writes them sees them. Everything in here may block."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["AppendedFile", "read_messages", "read_pieces"]

_PIECE = 64 * 1024


class AppendedFile:
    """
    A file that grows at its end, and is the user's alone.

    All raise `OSError`; what was written before stays whole then, and more can be tried.
    """

    def __init__(self, path: Path, begin: bytes, *, min_free: int) -> None:
        """`begin` is what it begins with; `min_free` are bytes that must be left on the disk for others."""
        self._min_free = min_free
        self._size = 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self.append(begin)
        except OSError:
            os.close(self._descriptor)
            path.unlink()
            raise

    def append(self, data: bytes) -> None:
        disk = os.fstatvfs(self._descriptor)
        if disk.f_bavail * disk.f_frsize < self._min_free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], self._size + written)
        self._size += len(data)

    def close(self) -> None:
        """Let go of it. What was written in part is cut off."""
        try:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
        finally:
            os.close(self._descriptor)


def read_pieces(path: Path) -> Iterator[bytes]:
    """Return a file's content as far as it is there; nothing where it is not, or cannot be read."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def read_messages(path: Path) -> list[str] | None:
    """Return the messages of a file, one in a line; one that a crash has cut off is left out. `None`: no file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return None
    found = []
    for line in lines[:-1]:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [text for text in found if isinstance(text, str)]
