"""One process for each node's name and data directory, so that nobody takes a living node's calls for orphans."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

__all__ = ["NodeLock"]


class NodeLock:
    """A locked file that the system lets go of when the process ends, however it ends."""

    def __init__(self, data_dir: Path, node: str) -> None:
        self._path = data_dir / f"{node}.lock"
        self._file: IO[bytes] | None = None

    def take(self) -> bool:
        """Return whether it is ours now, until `release`. Raises `OSError` for a folder that cannot be written."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
