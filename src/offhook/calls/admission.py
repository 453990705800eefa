"""
Who gets in, and to which project.

Pure: it reads addresses, Request-URIs and counts, and gives an answer with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from offhook.sip.reasons import create_reason
from offhook.tenants import Project, Projects, Trunk

from .record import Fault

__all__ = ["Admission", "Capacity", "Refusal", "Unanswered"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An INVITE that becomes no call."""

    status: int
    reason: str
    "In words; goes into the Reason header and the log."
    retry_after: int | None = None
    "Seconds. Only for the node's own trouble: it stops the peer from sending us anything (RFC 3261 section 21.5.4)."
    fault: Fault | None = None

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
    unanswered: int = 0
    max_unanswered: int = 0
    "Of the node; 0: `max_calls`."
    source_unanswered: int = 0
    max_source_unanswered: int = 0
    "Of one source; 0: `max_calls`."


class Admission:
    """Decides about INVITEs (decisions 2 and 11 of the design)."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    def find_project(
        self, user: str | None, host: str, source: str, proven: Trunk | None = None
    ) -> Project | Refusal:
        """
        Find who is called. `user` and `host` are the Request-URI's, `source` the peer's address, `proven` the trunk
        whose password it has.

        An unknown project and one that this source may not call get the same answer, so that no peer
        can tell project ids that exist from ones that do not.
        """
        project = self._projects.by_request_uri(user, host)
        if project is None or not self._projects.may_call(project, source, proven):
            named = user if user is not None else host
            return Refusal(404, f"no project of this source is called {named}")
        return project

    def check_capacity(self, project: Project, capacity: Capacity) -> Refusal | None:
        """Return why one more call cannot be taken now, or `None`."""
        if capacity.draining:
            return Refusal(503, "node is draining", 5, Fault.NODE_DRAINING)
        if capacity.calls >= capacity.max_calls:
            return Refusal(503, f"node is full: {capacity.calls} calls", 2, Fault.NODE_FULL)
        if capacity.unanswered >= (capacity.max_unanswered or capacity.max_calls):
            reason = f"node is full: {capacity.unanswered} calls are not answered"
            return Refusal(503, reason, 2, Fault.NODE_FULL)
        if capacity.source_unanswered >= (capacity.max_source_unanswered or capacity.max_calls):
            # The peer's own trouble, but no project's: its other way in may be better off.
            reason = f"{capacity.source_unanswered} calls of yours are not answered"
            return Refusal(503, reason, 2, Fault.SOURCE_FULL)
        if capacity.free_ports < 1:
            return Refusal(503, "node is full: no free media port", 2, Fault.NODE_FULL)
        if not capacity.engine_ready:
            return Refusal(503, "the engine is not warm yet", 1, Fault.NODE_NOT_READY)
        if project.max_calls and capacity.project_calls >= project.max_calls:
            return Refusal(480, f"project is full: {capacity.project_calls} calls", fault=Fault.PROJECT_FULL)
        return None


T = TypeVar("T", bound=Hashable)


class Unanswered(Generic[T]):
    """
    Calls that hold resources and have not been answered, by source.

    Being answered is looked up when a limit is reached and not announced, so that a call costs one set entry.
    """

    def __init__(self, is_unanswered: Callable[[T], bool]) -> None:
        self._is_unanswered = is_unanswered
        self._by_source: dict[str, set[T]] = {}
        self._total = 0

    def add(self, call: T, source: str) -> None:
        self._by_source.setdefault(source, set()).add(call)
        self._total += 1

    def discard(self, call: T, source: str) -> None:
        """Forget a call that ended; one that was forgotten already is none."""
        calls = self._by_source.get(source, set())
        if call in calls:
            calls.remove(call)
            self._total -= 1
            if not calls:
                del self._by_source[source]

    def of_source(self, source: str, limit: int) -> int:
        """Count those of a source: exactly from `limit` on, at most as many as said below it."""
        calls = self._by_source.get(source, ())
        if len(calls) >= limit:
            for call in [call for call in calls if not self._is_unanswered(call)]:
                self.discard(call, source)
        return len(self._by_source.get(source, ()))

    def of_node(self, limit: int) -> int:
        """Count all, as exactly."""
        if self._total >= limit:
            for source in list(self._by_source):
                self.of_source(source, 0)
        return self._total
