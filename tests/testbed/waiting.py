"""Waiting for what must come. Limits are far away: a busy machine is slow, and what is wrong stays away for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["PATIENCE_S", "eventually", "until"]

PATIENCE_S = 30.0
_BETWEEN_S = 0.01


async def until(holds: Callable[[], Any]) -> None:
    """Wait until it holds. Raises `TimeoutError`."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(_BETWEEN_S)


async def eventually(ask: Callable[[], Awaitable[Any]], wanted: Any) -> Any:
    """Ask until the answer is the wanted one, or no more is to be hoped for. Return the last answer."""
    answer = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await ask()) != wanted:
                await asyncio.sleep(_BETWEEN_S)
    except TimeoutError:
        pass
    return answer
