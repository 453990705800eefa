"""Projects of the configuration and projects made by API, in one: who asks for a project need not know which it is."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .project import Project, key_id
from .repository import ConfiguredProjects, plain_number

__all__ = ["ApiKey", "JoinedProjects", "StoredProject", "TenantStore", "hash_key"]


def hash_key(api_key: str) -> str:
    """Return a key's SHA-256 in hex, which is all that is kept of it. A key has 256 random bits: no salt is needed."""
    return hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it can be shown. Times are Unix seconds."""

    id: str
    "`key_` and the first 12 digits of its SHA-256, as in the log."
    project_id: str
    name: str
    hint: str
    "Its first and last characters."
    hash: str = field(repr=False)
    created_at: float | None
    "`None`: it stands in the configuration."
    revoked_at: float | None = None

    @classmethod
    def of(cls, api_key: str, project_id: str, name: str, created_at: float | None) -> ApiKey:
        hint = f"{api_key[:11]}...{api_key[-4:]}" if len(api_key) >= 32 else f"{api_key[:3]}..."
        return cls(key_id(api_key), project_id, name, hint, hash_key(api_key), created_at)


@dataclass(frozen=True, slots=True)
class StoredProject:
    """A project that was made by API."""

    project: Project
    name: str
    created_at: float
    settings: Mapping[str, Any] = field(repr=False)
    "What the configuration's table of a project would hold, but for keys and endpoints. Passwords are in it."


class TenantStore(Protocol):
    """Where projects and keys that were made by API are kept. What changes them returns whether that is kept."""

    async def projects(self) -> Sequence[tuple[str, str, float, Mapping[str, Any]]]:
        """Return id, name, time and settings of each."""

    async def keys(self) -> Sequence[ApiKey]: ...

    async def save_project(
        self, project_id: str, name: str, created_at: float, settings: Mapping[str, Any]
    ) -> bool: ...

    async def delete_project(self, project_id: str) -> bool:
        """Delete it with its keys and its webhook endpoints. Its calls stay."""

    async def save_key(self, key: ApiKey) -> bool: ...


class JoinedProjects(ConfiguredProjects):
    """
    Answers from memory for both. What both have, an id, a number or a host, is the configuration's.

    Keys made by API may be of a configured project too.
    """

    def __init__(self, configured: Iterable[Project]) -> None:
        self._configured: dict[str, Project] = {}
        self._stored: dict[str, StoredProject] = {}
        self._made: dict[str, ApiKey] = {}
        "By their hashes."
        super().__init__(configured)

    def replace(self, projects: Iterable[Project]) -> None:
        """Take these as the configuration's from now on; those made by API stay."""
        self._configured = {project.id: project for project in projects}
        self._index()

    def load(self, stored: Iterable[StoredProject], keys: Iterable[ApiKey]) -> None:
        """Take what was made by API in earlier runs."""
        self._stored = {one.project.id: one for one in stored}
        self._made = {key.hash: key for key in keys}
        self._index()

    def put(self, stored: StoredProject) -> None:
        self._stored[stored.project.id] = stored
        self._index()

    def remove(self, project_id: str) -> None:
        """Forget a project made by API, and its keys."""
        self._stored.pop(project_id, None)
        self._made = {hashed: key for hashed, key in self._made.items() if key.project_id != project_id}
        self._index()

    def put_key(self, key: ApiKey) -> None:
        self._made[key.hash] = key

    def by_api_key(self, api_key: str) -> Project | None:
        if (configured := super().by_api_key(api_key)) is not None:
            return configured
        # Looking up a hash tells by its delay nothing about keys.
        key = self._made.get(hash_key(api_key))
        return self.by_id(key.project_id) if key is not None and key.revoked_at is None else None

    def all(self) -> list[Project]:
        """Return the configuration's first, then the others in the order in which they were made."""
        made = sorted(self._stored.values(), key=lambda one: (one.created_at, one.project.id))
        others = [one.project for one in made if one.project.id not in self._configured]
        return [*self._configured.values(), *others]

    def is_configured(self, project_id: str) -> bool:
        return project_id in self._configured

    def stored(self, project_id: str) -> StoredProject | None:
        """Return a project made by API; `None` for one that is, or has become, the configuration's."""
        return None if project_id in self._configured else self._stored.get(project_id)

    def overshadowed(self) -> list[StoredProject]:
        """Return the projects made by API of which the configuration has something, too."""
        return [
            one
            for one in self._stored.values()
            if one.project.id in self._configured or self._clash(one.project, self._configured.values())
        ]

    def open_keys(self) -> Counter[str]:
        """Return how many keys open each project, by their ids."""
        configured = {project.id: len(project.api_keys) for project in self._configured.values()}
        return Counter(configured) + Counter(
            key.project_id for key in self._made.values() if key.revoked_at is None
        )

    def keys_of(self, project_id: str) -> list[ApiKey]:
        """Return a project's keys, revoked ones too: the configuration's, then the others, oldest first."""
        project = self._configured.get(project_id)
        configured = [ApiKey.of(key, project_id, "", None) for key in project.api_keys] if project else []
        made = [key for key in self._made.values() if key.project_id == project_id]
        return [*configured, *sorted(made, key=lambda key: (key.created_at or 0, key.id))]

    def clash(self, project: Project) -> str:
        """Say what of a project another one has already; empty when there is nothing."""
        return self._clash(project, self.all())

    @staticmethod
    def _clash(project: Project, others: Iterable[Project]) -> str:
        for other in others:
            if other.id == project.id:
                continue
            # A Request-URI's user may be an id or a number: they must not be mistaken for each other.
            users = _users(project) & _users(other)
            hosts = {host.lower() for host in project.hosts} & {host.lower() for host in other.hosts}
            accounts = {user for user, _ in _accounts(project) & _accounts(other)}
            for what, names in (("id or number", users), ("host", hosts), ("digest_user", accounts)):
                if names:
                    return f"{what} {min(names)!r} is that of {other.id}"
        return ""

    def _index(self) -> None:
        super().replace(
            [
                *(one.project for one in self._stored.values() if one.project.id not in self._configured),
                *self._configured.values(),
            ]
        )


def _users(project: Project) -> set[str]:
    return {project.id, *(plain_number(number) for number in project.numbers)}


def _accounts(project: Project) -> set[tuple[str, str]]:
    return {(trunk.digest.user, trunk.digest.realm) for trunk in project.trunks if trunk.digest is not None}
