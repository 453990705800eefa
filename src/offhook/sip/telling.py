"""What listeners are still to be told, a little in each turn of the loop, so that sockets are read in between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final, Generic, TypeVar

__all__ = ["Telling"]

Told = TypeVar("Told")

TURN_S: Final = 0.0005
"No more is begun in a turn after so long. What a new call sets off takes as long; its 100 takes a quarter of that."
MOST_WAITING: Final = 100
"""
With more than these everything is told before anything else is read: the kernel's buffer is the place for what comes
faster than it can be served, since what overflows there is sent again.
"""


class Telling(Generic[Told]):
    """
    A queue in front of `tell`, which must not raise. What is added while something is told waits for its turn.

    `read` is called before each that is told in a turn: what has come since then is answered first.
    """

    def __init__(self, tell: Callable[[Told], None], read: Callable[[], None]) -> None:
        self._tell = tell
        self._read = read
        self._waiting: deque[Told] = deque()
        self._is_telling = False
        self._next: asyncio.Handle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, what: Told) -> None:
        """Have it told in a later turn of the running loop."""
        if self._closed:
            return
        self._waiting.append(what)
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._take_turn)

    @property
    def is_full(self) -> bool:
        """Whether what waits is to be told before anything else is read."""
        return len(self._waiting) > MOST_WAITING

    def relieve(self) -> None:
        """Tell everything at once when too much waits. To be called where more is about to come in."""
        if self.is_full:
            self._run(None)

    def close(self) -> None:
        """Tell nothing more."""
        self._closed = True
        self._waiting.clear()
        if self._next is not None:
            self._next.cancel()

    def _take_turn(self) -> None:
        self._next = None
        self._run(perf_counter() + TURN_S)
        if self._waiting and self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._take_turn)

    def _run(self, until: float | None) -> None:
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while self._waiting:
                if until is not None:
                    self._read()
                self._tell(self._waiting.popleft())
                if until is not None and perf_counter() >= until:
                    return
        finally:
            self._is_telling = False
