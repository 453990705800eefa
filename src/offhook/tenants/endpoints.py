"""All webhook endpoints: those of the configuration, and those made by API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from .project import WebhookEndpoint
from .repository import Projects

__all__ = ["EndpointStore", "Endpoints"]


class EndpointStore(Protocol):
    """Where endpoints that were made by API are kept."""

    async def load(self) -> Iterable[tuple[str, WebhookEndpoint]]:
        """Return them with their projects' ids, oldest first."""

    async def save(self, project_id: str, endpoint: WebhookEndpoint) -> bool:
        """Return whether it is kept; if not, nothing has changed."""

    async def delete(self, project_id: str, endpoint: WebhookEndpoint) -> bool:
        """Return whether it is gone; if not, nothing has changed."""


class Endpoints:
    """
    Answers from memory; what changes is kept first.

    An endpoint is looked up again for each attempt, so that a change of its URL or its secrets counts at once.
    """

    def __init__(self, projects: Projects, store: EndpointStore | None = None) -> None:
        self._projects = projects
        self._store = store
        self._made: dict[str, dict[str, WebhookEndpoint]] = {}

    async def load(self) -> None:
        """Read what was made before."""
        for project_id, endpoint in await self._store.load() if self._store is not None else ():
            self._made.setdefault(project_id, {})[endpoint.id] = endpoint

    @property
    def can_be_made(self) -> bool:
        """Whether there is somewhere to keep them."""
        return self._store is not None

    def of(self, project_id: str) -> list[WebhookEndpoint]:
        """Return a project's endpoints, oldest first; none of a project that is gone."""
        project = self._projects.by_id(project_id)
        if project is None:
            return []
        return [*project.webhooks, *self._made.get(project_id, {}).values()]

    def find(self, project_id: str, endpoint_id: str) -> WebhookEndpoint | None:
        return next((found for found in self.of(project_id) if found.id == endpoint_id), None)

    async def save(self, project_id: str, endpoint: WebhookEndpoint) -> bool:
        """Make or change one; return whether that could be kept, without which nothing changes."""
        if self._store is None or not await self._store.save(project_id, endpoint):
            return False
        self._made.setdefault(project_id, {})[endpoint.id] = endpoint
        return True

    def forget(self, project_id: str) -> None:
        """The project was deleted, and its endpoints with it: another one of that id does not inherit them."""
        self._made.pop(project_id, None)

    async def delete(self, project_id: str, endpoint: WebhookEndpoint) -> bool:
        """Remove one; return whether that could be kept."""
        if self._store is None or not await self._store.delete(project_id, endpoint):
            return False
        self._made.get(project_id, {}).pop(endpoint.id, None)
        return True
