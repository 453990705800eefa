"""Where projects are found. The protocol is what rooms above need; the store will be a second implementation."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from .project import Project, Trunk

__all__ = ["ConfiguredProjects", "Projects"]


class Projects(Protocol):
    """Look-ups by everything that a request can name a project with. All answer from memory."""

    def by_api_key(self, api_key: str) -> Project | None:
        """Compare in constant time: the answer's delay says nothing about keys."""

    def by_request_uri(self, user: str | None, host: str) -> Project | None:
        """Find by the Request-URI: its user as a project id, its user as a number, its host. Never by To."""

    def by_id(self, project_id: str) -> Project | None: ...

    def lists_source(self, address: str) -> bool:
        """Whether any trunk of any project may call from this address."""

    def lists(self, project: Project, address: str) -> bool:
        """Whether any trunk of this project may call from this address, if need be with a password."""

    def may_call(self, project: Project, address: str, proven: Trunk | None = None) -> bool:
        """Whether a trunk of this project may call from this address; `proven` is the one whose password it has."""

    def digest_trunks(self, address: str) -> Sequence[Trunk]:
        """Return the trunks, of all projects, whose password may let this address in."""


class ConfiguredProjects:
    """Projects named in the configuration. `replace` takes a new one's; what was handed out stays as it was."""

    def __init__(self, projects: Iterable[Project]) -> None:
        self._registrars: dict[str, frozenset[str]] = {}
        self.replace(projects)

    def replace(self, projects: Iterable[Project]) -> None:
        """Answer from these projects alone from now on."""
        self._projects = {project.id: project for project in projects}
        self._by_number = {
            _digits(number): project for project in self._projects.values() for number in project.numbers
        }
        self._by_host = {
            host.lower(): project for project in self._projects.values() for host in project.hosts
        }
        self._keys = [(key.encode(), p) for p in self._projects.values() for key in p.api_keys]
        self._with_digest = [
            trunk
            for project in self._projects.values()
            for trunk in project.trunks
            if trunk.digest is not None
        ]
        self._admitted: dict[str, bool] = {}

    def admit_registrars(self, addresses: Mapping[str, frozenset[str]]) -> None:
        """Admit the addresses of the registrars that trunks are registered with, by project; others no longer."""
        self._registrars = {project: frozenset(found) for project, found in addresses.items()}
        self._admitted.clear()

    def by_api_key(self, api_key: str) -> Project | None:
        given, found = api_key.encode(), None
        for key, project in self._keys:
            if hmac.compare_digest(key, given):
                found = project
        return found

    def by_id(self, project_id: str) -> Project | None:
        return self._projects.get(project_id)

    def by_request_uri(self, user: str | None, host: str) -> Project | None:
        if user is not None and (project := self._projects.get(user)):
            return project
        if user is not None and (project := self._by_number.get(_digits(user))):
            return project
        return self._by_host.get(host.lower())

    def lists_source(self, address: str) -> bool:
        known = self._admitted.get(address)
        if known is None:
            if len(self._admitted) > 10_000:  # a scan from many addresses must not grow this without end
                self._admitted.clear()
            known = any(self.lists(project, address) for project in self._projects.values())
            self._admitted[address] = known
        return known

    def lists(self, project: Project, address: str) -> bool:
        return project.trunk_at(address) is not None or self._is_registrar(project, address)

    def may_call(self, project: Project, address: str, proven: Trunk | None = None) -> bool:
        if proven is not None and proven in project.trunks:
            return True
        if self._is_registrar(project, address):
            return True
        return any(trunk.digest is None and trunk.holds(address) for trunk in project.trunks)

    def digest_trunks(self, address: str) -> Sequence[Trunk]:
        return [trunk for trunk in self._with_digest if not trunk.sources or trunk.holds(address)]

    def _is_registrar(self, project: Project, address: str) -> bool:
        return address in self._registrars.get(project.id, ())


def _digits(number: str) -> str:
    """Return a number without the `+` that some carriers leave out."""
    return number.removeprefix("+")
