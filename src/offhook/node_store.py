"""What a node keeps, on its database; or that it keeps nothing."""

from __future__ import annotations

from offhook.calls.journal import Journal, NoJournal
from offhook.calls.past import NoPastCalls, PastCalls
from offhook.calls.statistics import CallStatistics
from offhook.clock import Clock
from offhook.config import Config
from offhook.store import Database
from offhook.store.journal import StoreJournal
from offhook.store.past import StorePastCalls
from offhook.store.retention import Retention
from offhook.store.statistics import StoreStatistics

__all__ = ["NodeStore"]


class NodeStore:
    """`database` is `None` with `server.database = "none"`: then `journal` keeps nothing, and `past` is empty."""

    def __init__(self, database: Database | None, config: Config, clock: Clock) -> None:
        self.database = database
        self.journal: Journal = NoJournal()
        self.past: PastCalls = NoPastCalls()
        self.statistics: CallStatistics | None = None
        self._retention: Retention | None = None
        if database is not None:
            self.journal = StoreJournal(database.writer, config.server.node)
            self.past = StorePastCalls(database)
            self.statistics = StoreStatistics(database)
            if config.server.keep_days:
                self._retention = Retention(database, config.server.keep_days, clock)

    @classmethod
    async def open(cls, config: Config, clock: Clock) -> NodeStore:
        """Open what the configuration names. Raises `StoreError`."""
        server = config.server
        if server.database == "none":
            return cls(None, config, clock)
        return cls(await Database.open(server.database, server.data_dir), config, clock)

    def start(self) -> None:
        """Forget from now on what is too old."""
        if self._retention is not None:
            self._retention.start()

    def describe(self) -> dict[str, object] | None:
        """Return how far the writer is behind, for the operator."""
        return self.database.describe() if self.database is not None else None

    def warnings(self) -> list[str]:
        """Return what the operator should look at."""
        return self.database.warnings() if self.database is not None else []

    async def close(self) -> None:
        """Write what waits, and let go of the file."""
        if self._retention is not None:
            self._retention.close()
        if self.database is not None:
            await self.database.close()
