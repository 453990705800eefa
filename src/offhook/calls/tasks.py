"""The tasks of one call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["CallTasks"]

log = logging.getLogger("offhook.calls")


class CallTasks:
    """Lets them run to their ends. One that fails is a fault of ours, which `on_bug` is told in words."""

    def __init__(self, call_id: str, on_bug: Callable[[str], None]) -> None:
        self._call_id = call_id
        self._on_bug = on_bug
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def wait(self) -> None:
        """Wait until none runs, nor any that they began."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error(
                "call task failed", exc_info=error, extra={"event": "call.bug", "call_id": self._call_id}
            )
            self._on_bug(f"internal error: {error!r}")
