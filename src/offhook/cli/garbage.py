"""When the garbage collector may look at everything that lives: not while somebody hears the pause."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Final

__all__ = ["collect_if_idle", "collect_when_idle", "settle"]

MIDDLE_AFTER: Final = 4
"Collections of the youngest before one of the middle: with the interpreter's 10 that takes 2 ms, as calls come."
FULL_AFTER: Final = 500
"""
Collections of the middle generation before a full one may come by itself. A full one stops everything for 20 ms and
more with a hundred calls up, and with the interpreter's 10 it comes every few seconds while they begin. At 2800 objects
each, what may wait for it is bounded to some 100 MB.
"""
EVERY_S: Final = 10.0


def settle() -> None:
    """Take all that lives now out of the collector's sight, and let it look at the rest seldom."""
    gc.collect()
    gc.freeze()
    young, _, _ = gc.get_threshold()
    gc.set_threshold(young, MIDDLE_AFTER, FULL_AFTER)


def collect_if_idle(calls: int) -> bool:
    """Collect all, unless calls are up or little has happened since the last time. Returns whether it did."""
    if calls or not gc.get_count()[2]:
        return False
    gc.collect()
    return True


async def collect_when_idle(calls: Callable[[], int], every_s: float = EVERY_S) -> None:
    """Collect whenever there are no calls, until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        collect_if_idle(calls())
