"""Going through a long list without holding the loop up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

__all__ = ["slowly"]

T = TypeVar("T")


async def slowly(things: Iterable[T]) -> AsyncIterator[T]:
    """Let packets be sent in between: to describe a call takes up to 0.1 ms, and thousands may be looked at."""
    for number, thing in enumerate(things):
        if number % 8 == 7:
            await asyncio.sleep(0)
        yield thing
