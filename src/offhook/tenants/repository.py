"""Where projects are found. The protocol is what rooms above need; the store will be a second implementation."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from .project import Project, Trunk, plain_address

__all__ = ["ConfiguredProjects", "Projects", "plain_number"]


class Projects(Protocol):
    """Look-ups by everything that a request can name a project with. All answer from memory."""

    def by_api_key(self, api_key: str) -> Project | None:
        """Compare in constant time: the answer's delay says nothing about keys."""

    def by_request_uri(self, user: str | None, host: str) -> Project | None:
        """Find by the Request-URI: its user as a project id, its user as a number, its host. Never by To."""

    def by_id(self, project_id: str) -> Project | None: ...

    def lists_source(self, address: str) -> bool:
        """Whether any trunk of any project may call from this address."""

    def trunk_at(self, project: Project, address: str) -> Trunk | None:
        """Return the first trunk of this project that may call from this address, if need be with a password."""

    def is_alone(self, project: Project) -> bool:
        """Whether it is the node's only project, so that its keys are the operator's own."""

    def may_call(self, project: Project, address: str, proven: Trunk | None = None) -> bool:
        """Whether a trunk of this project may call from this address; `proven` is the one whose password it has."""

    def digest_trunks(self, address: str) -> Sequence[Trunk]:
        """Return the trunks, of all projects, whose password may let this address in."""


MAX_ADDRESSES = 10_000
"What is remembered of addresses. A scan from many must not grow this without end."


class _Origin(NamedTuple):
    """What an address is to a project."""

    project: Project
    trunk: Trunk | None
    "The first that may call from it."
    is_enough: bool
    "Whether it may call without a password."


class ConfiguredProjects:
    """Projects named in the configuration. `replace` takes a new one's; what was handed out stays as it was."""

    def __init__(self, projects: Iterable[Project]) -> None:
        self._registrars: dict[tuple[str, str], frozenset[str]] = {}
        self.replace(projects)

    def replace(self, projects: Iterable[Project]) -> None:
        """Answer from these projects alone from now on."""
        self._projects = {project.id: project for project in projects}
        self._by_number = {
            plain_number(number): project for project in self._projects.values() for number in project.numbers
        }
        self._by_host = {
            host.lower(): project for project in self._projects.values() for host in project.hosts
        }
        self._keys = [(key.encode(), p) for p in self._projects.values() for key in p.api_keys]
        self._with_digest = [
            (project, trunk)
            for project in self._projects.values()
            for trunk in project.trunks
            if trunk.digest is not None
        ]
        self._admitted: dict[str, bool] = {}
        self._origins: dict[tuple[str, str], _Origin] = {}

    def admit_registrars(self, addresses: Mapping[tuple[str, str], frozenset[str]]) -> None:
        """
        Make registrars' addresses sources of the trunks that are registered there; others are none any longer.

        The keys are a project's id and the name of its trunk.
        """
        self._registrars = {
            trunk: frozenset(plain_address(one) for one in found) for trunk, found in addresses.items()
        }
        self._admitted.clear()
        self._origins.clear()

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
        if user is not None and (project := self._by_number.get(plain_number(user))):
            return project
        return self._by_host.get(host.lower())

    def lists_source(self, address: str) -> bool:
        known = self._admitted.get(address)
        if known is None:
            if len(self._admitted) > MAX_ADDRESSES:
                self._admitted.clear()
            known = any(self._trunks_at(project, address) for project in self._projects.values())
            self._admitted[address] = known
        return known

    def trunk_at(self, project: Project, address: str) -> Trunk | None:
        return self._origin(project, address).trunk

    def is_alone(self, project: Project) -> bool:
        return list(self._projects) == [project.id]

    def may_call(self, project: Project, address: str, proven: Trunk | None = None) -> bool:
        if proven is not None and proven in project.trunks:
            return True
        return self._origin(project, address).is_enough

    def digest_trunks(self, address: str) -> Sequence[Trunk]:
        return [
            trunk
            for project, trunk in self._with_digest
            if not (trunk.sources or trunk.register) or self._comes_from(project, trunk, address)
        ]

    def _origin(self, project: Project, address: str) -> _Origin:
        known = self._origins.get((project.id, address))
        # A call may still hold what its project was before.
        if known is None or known.project is not project:
            if len(self._origins) > MAX_ADDRESSES:
                self._origins.clear()
            trunks = self._trunks_at(project, address)
            known = _Origin(project, trunks[0] if trunks else None, _is_enough(trunks, address))
            self._origins[project.id, address] = known
        return known

    def _trunks_at(self, project: Project, address: str) -> list[Trunk]:
        return [trunk for trunk in project.trunks if self._comes_from(project, trunk, address)]

    def _comes_from(self, project: Project, trunk: Trunk, address: str) -> bool:
        if trunk.holds(address):
            return True
        if trunk.register is None:
            return False
        return plain_address(address) in self._registrars.get((project.id, trunk.name), ())


def _is_enough(trunks: Sequence[Trunk], address: str) -> bool:
    """Whether this address may call without a password, given the trunks that it may be."""
    if any(trunk.digest is None and trunk.holds(address) for trunk in trunks):
        return True
    # A registrar's address is let in without having been written down: where a password is wanted of it, it is.
    return bool(trunks) and all(trunk.digest is None for trunk in trunks)


def plain_number(number: str) -> str:
    """Return a number without the `+` that some carriers leave out."""
    return number.removeprefix("+")
