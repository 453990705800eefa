"""A thread that writes files, so that a slow disk keeps nobody else waiting."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from offhook import precedence

__all__ = ["FileThread"]

log = logging.getLogger("offhook.store")


class FileThread:
    """Does what it is given, one after the other."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._name = name
        self._thread = threading.Thread(target=self._run, name=f"offhook-{name}", daemon=True)
        self._thread.start()
        self.do = self._work.put

    def close(self, *, timeout: float = 10.0) -> None:
        """Let it finish, for so many seconds at most."""
        self._work.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        precedence.go_behind()
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                log.exception("a file could not be written", extra={"event": f"{self._name}.bug"})
