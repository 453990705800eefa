"""When the garbage collector may look at what lives: not while somebody hears the pause, or waits for an answer."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import Callable
from typing import Final

__all__ = ["Collector", "resident_bytes"]

YOUNG: Final = 100_000
"""
Objects more than at the last look, before the interpreter collects by itself. A call makes some 1,000 that live as
long as it does and no circles, so with the interpreter's 700 it looked at each of them twice and found nothing: a
quarter of a millisecond a call, and pauses of 2 ms.
"""
FREEZE_AFTER: Final = 20_000
"So many more while calls are up are those of calls: they go out of sight, which costs nothing, before 100,000 pile up."
WORTH_A_LOOK: Final = 1_000
LOOK_EVERY_S: Final = 1.0
IDLE_LOOKS: Final = 10
"Looks in a row without a call, before everything new is looked at."
IDLE_GROWTH: Final = 128 << 20
MOST_GROWTH: Final = 512 << 20
"""
Bytes that the process may grow before what is out of sight is looked at, too: the former once it is idle, the latter
whatever it does. That takes 0.2 s, and 0.7 s with 3,000 calls remembered.
"""


class Collector:
    """Takes all that lives now out of the collector's sight. `tend` sees to the rest."""

    def __init__(self, memory: Callable[[], int] | None = None) -> None:
        self._memory = memory or resident_bytes
        self._idle_looks = 0
        gc.set_threshold(YOUNG, 10, 10)
        self._collect_all()

    def look(self, calls: int) -> None:
        """To be called every `LOOK_EVERY_S` with how many calls are up."""
        self._idle_looks = 0 if calls else self._idle_looks + 1
        young, *_ = gc.get_count()
        growth = self._memory() - self._settled_at
        if growth > MOST_GROWTH:
            self._collect_all()
        elif calls and young > FREEZE_AFTER:
            gc.freeze()
        elif self._idle_looks >= IDLE_LOOKS:
            self._idle_looks = 0
            if growth > IDLE_GROWTH:
                self._collect_all()
            elif young > WORTH_A_LOOK:
                gc.collect()

    async def tend(self, calls: Callable[[], int], every_s: float = LOOK_EVERY_S) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.look(calls())

    def _collect_all(self) -> None:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._settled_at = self._memory()


def resident_bytes() -> int:
    """Return the memory that the process has now; where that is not told, the most that it ever had."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
