"""
Who gets in, and to which project.

Pure: it reads addresses, Request-URIs and counts, and gives an answer with its reason.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from offhook.sip.reasons import create_reason
from offhook.tenants import Project, Projects

__all__ = ["Admission", "Capacity", "Refusal", "RefusedSource", "RefusedSources"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An INVITE that becomes no call."""

    status: int
    reason: str
    "In words; goes into the Reason header and the log."
    retry_after: int | None = None
    "Seconds. Only for the node's own trouble: it stops the peer from sending us anything (RFC 3261 section 21.5.4)."

    def headers(self) -> list[tuple[str, str]]:
        """Return the response's `Reason` and `Retry-After`."""
        headers = [("Reason", create_reason("SIP", self.status, self.reason))]
        if self.retry_after is not None:
            headers.append(("Retry-After", str(self.retry_after)))
        return headers


@dataclass(frozen=True, slots=True)
class Capacity:
    """What is in use at the moment of an INVITE."""

    calls: int
    max_calls: int
    project_calls: int
    free_ports: int
    draining: bool
    engine_ready: bool


class Admission:
    """Decides about INVITEs (decisions 2 and 11 of the design)."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    def find_project(self, user: str | None, host: str, source: str) -> Project | Refusal:
        """
        Find who is called. `user` and `host` are the Request-URI's, `source` the peer's address.

        An unknown project and one that this source may not call get the same answer, so that no peer
        can tell project ids that exist from ones that do not.
        """
        project = self._projects.by_request_uri(user, host)
        if project is None or not self._projects.may_call(project, source):
            named = user if user is not None else host
            return Refusal(404, f"no project of this source is called {named}")
        return project

    def check_capacity(self, project: Project, capacity: Capacity) -> Refusal | None:
        """Return why one more call cannot be taken now, or `None`."""
        if capacity.draining:
            return Refusal(503, "node is draining", retry_after=5)
        if capacity.calls >= capacity.max_calls:
            return Refusal(503, f"node is full: {capacity.calls} calls", retry_after=2)
        if capacity.free_ports < 1:
            return Refusal(503, "node is full: no free media port", retry_after=2)
        if not capacity.engine_ready:
            return Refusal(503, "the engine is not warm yet", retry_after=1)
        if project.max_calls and capacity.project_calls >= project.max_calls:
            return Refusal(480, f"project is full: {capacity.project_calls} calls")
        return None


@dataclass(slots=True)
class RefusedSource:
    """A peer that no project lists, with what it takes to admit it."""

    address: str
    first_at: float
    last_at: float
    count: int = 1

    @property
    def remedy(self) -> str:
        prefix = 128 if ":" in self.address else 32
        return f'[[projects.trunks]] sources = ["{self.address}/{prefix}"]'


class RefusedSources:
    """One entry for each source that was refused, however often it tries. Bounded: the oldest is forgotten."""

    def __init__(self, limit: int = 1_000) -> None:
        self._limit = limit
        self._sources: OrderedDict[str, RefusedSource] = OrderedDict()

    def add(self, address: str, now: float) -> RefusedSource | None:
        """Count a refusal. Return the entry when it is worth a log line: the 1st, 10th, 100th ... time."""
        entry = self._sources.get(address)
        if entry is None:
            if len(self._sources) >= self._limit:
                self._sources.popitem(last=False)
            entry = self._sources[address] = RefusedSource(address, now, now)
        else:
            entry.count += 1
            entry.last_at = now
            self._sources.move_to_end(address)
        return entry if str(entry.count).strip("0") == "1" else None

    def all(self) -> list[RefusedSource]:
        return list(self._sources.values())
