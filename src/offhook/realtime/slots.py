"""Engines' sessions that were promised to somebody who does not need them yet. Pure."""

from __future__ import annotations

from collections import Counter

from .engine import Engine, EngineFactory, EngineUnavailable

__all__ = ["EngineSlot", "EngineSlots"]


class EngineSlot:
    """A promise: one more engine of this factory can be had, until `give_back`."""

    def __init__(self, slots: EngineSlots, factory: EngineFactory) -> None:
        self.factory = factory
        self._slots: EngineSlots | None = slots

    @property
    def is_held(self) -> bool:
        return self._slots is not None

    def give_back(self) -> None:
        slots, self._slots = self._slots, None
        if slots is not None:
            slots._promised[self.factory] -= 1


class EngineSlots:
    """Counts promises; whoever has none gets what is left over."""

    def __init__(self) -> None:
        self._promised: Counter[EngineFactory] = Counter()

    def promise(self, factory: EngineFactory) -> EngineSlot | None:
        """Return a promise, or `None` when all sessions are in use or promised."""
        if not self._has_room(factory):
            return None
        self._promised[factory] += 1
        return EngineSlot(self, factory)

    def promised_of(self, factory: EngineFactory) -> int:
        """Return how many of a factory's free sessions are promised."""
        return self._promised[factory]

    def create(self, factory: EngineFactory, promise: EngineSlot | None = None) -> Engine:
        """
        Return an engine, by a promise of this factory's or without one; any promise is then given back.

        Raises `EngineUnavailable`; the promise stands then.
        """
        is_promised = promise is not None and promise.is_held and promise.factory is factory
        if not is_promised and not self._has_room(factory):
            raise EngineUnavailable(
                f"all free sessions of engine {factory.kind} are promised to calls that ring"
            )
        engine = factory.create()
        if promise is not None:
            promise.give_back()
        return engine

    def _has_room(self, factory: EngineFactory) -> bool:
        free = factory.free
        return free is None or free > self._promised[factory]
