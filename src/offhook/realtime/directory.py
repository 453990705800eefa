"""Which engine serves which model name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .engine import Engine, EngineFactory
from .relayed_config import parse_relayed
from .session_config import DEFAULT_MODEL, SessionConfig, parse_accept
from .slots import EngineSlot, EngineSlots

__all__ = ["EngineDirectory"]

ANY_MODEL = "*"
MAX_STANDING = 256
"Standing bodies whose judgements are remembered."


class EngineDirectory:
    """
    The engines of a node, and the `[models]` table that chooses among them.

    `models` maps a model name of an accept body to a kind of engine; `"*"` stands for all names that are not listed,
    and `default` serves what is left.
    """

    def __init__(
        self, factories: Mapping[str, EngineFactory], *, default: str, models: Mapping[str, str]
    ) -> None:
        self._factories = dict(factories)
        self._models = dict(models)
        self._default = self._models.get(ANY_MODEL, default)
        self._slots = EngineSlots()
        self._standing: dict[int, tuple[Any, tuple[SessionConfig, Mapping[str, Any]]]] = {}
        "Bodies with what came of them, by identity: while one is in here, no other object has its."

    @property
    def ready(self) -> bool:
        """Whether every engine could serve a call now."""
        return all(factory.ready for factory in self._factories.values())

    def select(self, model: str | None) -> EngineFactory:
        """Return the engine for a model name, or for an accept body that has none."""
        return self._factories[self._models.get(model or ANY_MODEL, self._default)]

    def promise(self, model: str | None) -> EngineSlot | None:
        """Hold a session of the engine for this model, or else of any with room; `None` when all are full."""
        first = self.select(model)
        slot = self._slots.promise(first)
        if slot is not None:
            return slot
        others = (factory for factory in self._factories.values() if factory is not first)
        return next((slot for factory in others if (slot := self._slots.promise(factory))), None)

    def create(self, factory: EngineFactory, promise: EngineSlot | None = None) -> Engine:
        """Return an engine, see `EngineSlots.create`. Raises `EngineUnavailable`."""
        return self._slots.create(factory, promise)

    def judge(self, body: Any) -> tuple[SessionConfig, Mapping[str, Any]]:
        """
        Judge an accept body as its engine can take it.

        Returns the configuration, and what was given, without defaults. Raises `session_config.ConfigError`.
        """
        model = body.get("model") if isinstance(body, Mapping) else None
        if self.select(model if isinstance(model, str) else DEFAULT_MODEL).relays:
            return parse_relayed(body)
        config = parse_accept(body)
        return config, config.model_dump(exclude_unset=True)

    def judge_standing(self, body: Any) -> tuple[SessionConfig, Mapping[str, Any]]:
        """Judge, once for all calls, a body that nobody changes, such as a fallback's; else as `judge`."""
        known = self._standing.get(id(body))
        if known is None:
            if len(self._standing) >= MAX_STANDING:
                del self._standing[next(iter(self._standing))]
            known = self._standing[id(body)] = (body, self.judge(body))
        return known[1]

    def describe(self) -> list[dict[str, object]]:
        """Say what each engine is, and how many sessions it has left (`None`: any number)."""
        return [
            {**factory.describe(), "free": factory.free, "promised": self._slots.promised_of(factory)}
            for factory in self._factories.values()
        ]

    async def start(self) -> None:
        """Warm all engines. Raises `EngineUnavailable` when one cannot be had."""
        for factory in self._factories.values():
            await factory.start()

    async def close(self) -> None:
        for factory in self._factories.values():
            await factory.close()
