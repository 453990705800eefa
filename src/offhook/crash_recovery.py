"""What a new process does about the calls of one that crashed (decision 12 of the design)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from offhook.calls.orphans import Orphan, Orphans
from offhook.store import Database
from offhook.store.node_lock import NodeLock
from offhook.store.orphans import find_orphans

__all__ = ["CrashRecovery"]

log = logging.getLogger("offhook.node")


class CrashRecovery:
    """`claim` before the database is opened, `find` before new calls come, `end` when they can, `release` at last."""

    def __init__(self, data_dir: Path, node: str) -> None:
        self._node = node
        self._lock = NodeLock(data_dir, node)
        self._found: list[Orphan] = []

    def claim(self) -> bool:
        """
        Return whether this process alone is this node now.

        Two would each take the other's calls for orphans, and deliver each other's webhooks. Raises `OSError`.
        """
        return self._lock.take()

    async def find(self, database: Database | None) -> None:
        """Note the calls of an earlier process of this node that did not end them. Never raises."""
        try:
            if database is not None:
                self._found = await find_orphans(database, self._node)
        except Exception:
            log.exception("what a crash left cannot be read", extra={"event": "call.orphan.failed"})

    def end(self, orphans: Orphans) -> Iterator[None]:
        """Hang up on those who are left, and close their calls, in short steps."""
        found, self._found = self._found, []
        return orphans.end(found)

    def release(self) -> None:
        self._lock.release()
