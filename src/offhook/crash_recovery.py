"""What a new process does about the calls of one that crashed (decision 12 of the design)."""

from __future__ import annotations

import logging
from pathlib import Path

from offhook.calls.orphans import Orphan, Orphans
from offhook.store import Database
from offhook.store.node_lock import NodeLock
from offhook.store.orphans import find_orphans

__all__ = ["CrashRecovery"]

log = logging.getLogger("offhook.node")


class CrashRecovery:
    """`find` before new calls come, `end` when they can, `release` at the end of the process."""

    def __init__(self, data_dir: Path, node: str) -> None:
        self._data_dir = data_dir
        self._node = node
        self._lock = NodeLock(data_dir, node)
        self._found: list[Orphan] = []

    async def find(self, database: Database | None) -> None:
        """Note the calls of an earlier process of this node that did not end them. Never raises."""
        try:
            if database is None:
                return
            if self._lock.take():
                self._found = await find_orphans(database, self._node)
                return
            log.warning(
                "another process uses server.data_dir = %r as node %r: its calls are left alone",
                str(self._data_dir),
                self._node,
                extra={"event": "node.lock"},
            )
        except Exception:
            log.exception("what a crash left cannot be read", extra={"event": "call.orphan.failed"})

    def end(self, orphans: Orphans) -> None:
        """Hang up on those who are left, and close their calls."""
        found, self._found = self._found, []
        orphans.end(found)

    def release(self) -> None:
        self._lock.release()
