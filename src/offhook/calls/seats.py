"""
What a call will need when it is answered, held for it before it rings: a media port and an engine's session. Pure.

Which engine that is, the accept will say. It is taken to be the one of the project's last accept; before the first, the
one of its fallback, else the one for any model. Where that is full, another with room will do.
"""

from __future__ import annotations

from offhook.media.port import MediaPort, PortPlace, PortPool
from offhook.realtime.directory import EngineDirectory
from offhook.realtime.engine import Engine, EngineFactory
from offhook.realtime.slots import EngineSlot
from offhook.tenants import Project

from .admission import Refusal
from .record import Fault

__all__ = ["Seat", "Seats"]


class Seat:
    """One call's. `give_back` at its end, whatever was used of it."""

    def __init__(self, seats: Seats, project_id: str, place: PortPlace, slot: EngineSlot) -> None:
        self._seats = seats
        self._project_id = project_id
        self._place = place
        self._slot = slot

    def create_engine(self, factory: EngineFactory, model: str | None) -> Engine:
        """
        Return an engine of this factory for an accept that asked for this model; it may be another than was held.

        Raises `EngineUnavailable`; the seat stands then.
        """
        engine = self._seats.engines.create(factory, self._slot)
        self._seats.models[self._project_id] = model
        return engine

    def open_port(self) -> MediaPort:
        """Bind the port. Raises `NoFreePort`."""
        return self._place.open()

    def give_back(self) -> None:
        """Let another call have what was not used."""
        self._place.give_back()
        self._slot.give_back()


class Seats:
    """All that can be held."""

    def __init__(self, ports: PortPool, engines: EngineDirectory) -> None:
        self.engines = engines
        self.models: dict[str, str | None] = {}
        "What each project's last accept asked for."
        self._ports = ports

    def take(self, project: Project) -> Seat | Refusal:
        """Hold what one more call of this project needs, or return why it cannot be had."""
        place = self._ports.promise()
        if place is None:
            return Refusal(503, "node is full: no free media port", 2, Fault.NODE_FULL)
        slot = self.engines.promise(self._expected(project))
        if slot is None:
            place.give_back()
            return Refusal(503, "node is full: no engine has a free session", 2, Fault.ENGINE_FULL)
        return Seat(self, project.id, place, slot)

    def _expected(self, project: Project) -> str | None:
        if project.id in self.models:
            return self.models[project.id]
        accept = project.fallback.accept if project.fallback is not None else None
        model = accept.get("model") if accept is not None else None
        return model if isinstance(model, str) else None
