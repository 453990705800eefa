"""Makes and changes projects and their keys, for the admin API, the pages and the commands."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from offhook import ids
from offhook.calls.errors import CallError
from offhook.clock import Clock
from offhook.tenants import ApiKey, JoinedProjects, Project, StoredProject, TenantStore, Trunk

from .body import refuse_unknown, type_name
from .slowly import slowly

__all__ = ["ProjectDesk", "SettingsError", "describe_key", "describe_project"]

log = logging.getLogger("offhook.server")

MAX_ID, MAX_NAME = 64, 256
MAX_KEYS = 100
"Of one project, revoked ones included."

Parse = Callable[[str, Mapping[str, Any]], Project]


class SettingsError(ValueError):
    """Settings that make no project. `param` is the place, dotted; empty when it is no single one."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class ProjectDesk:
    """
    Everything raises `CallError` for what cannot be done. What changes is kept first, and counts at once.

    `parse` makes a project of an id and settings, or raises `SettingsError`; `on_change` is called when projects have
    changed, `on_deleted` with the id of one that is gone.
    """

    def __init__(
        self, projects: JoinedProjects, store: TenantStore | None, *, parse: Parse, clock: Clock
    ) -> None:
        self._projects = projects
        self._store = store
        self._parse = parse
        self._clock = clock
        self._changing = asyncio.Lock()
        self.on_change: Callable[[Sequence[Project]], None] = lambda projects: None
        self.on_deleted: Callable[[str], None] = lambda project_id: None

    async def load(self) -> None:
        """Take what was made in earlier runs."""
        if self._store is None:
            return
        stored = []
        for project_id, name, created_at, settings in await self._store.projects():
            try:
                project = self._parse(project_id, settings)
            except SettingsError as error:
                log.error(
                    "project %s, made by API, cannot be used: %s: %s", project_id, error.param, error,
                    extra={"event": "project.unusable", "project_id": project_id},
                )  # fmt: skip
            else:
                stored.append(StoredProject(project, name, created_at, settings))
        self._projects.load(stored, await self._store.keys())

    async def all(self) -> list[dict[str, Any]]:
        """Return all projects as the API shows them, the configuration's first."""
        return [self._describe(project) async for project in slowly(self._projects.all())]

    def names(self) -> dict[str, str]:
        """Return what people call each project, by their ids, in the order of `all`."""
        stored = ((project.id, self._projects.stored(project.id)) for project in self._projects.all())
        return {project_id: found.name if found else "" for project_id, found in stored}

    def open_keys(self) -> Counter[str]:
        """Return how many keys open each project."""
        return self._projects.open_keys()

    def find(self, project_id: str) -> dict[str, Any]:
        return self._describe(self._existing(project_id))

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a project; without an `id` it gets one."""
        settings = dict(body)
        project_id = _text(settings, "id", MAX_ID) if "id" in settings else ids.opaque_id("proj")
        settings.pop("id", None)
        name = _text(settings, "name", MAX_NAME) if "name" in settings else ""
        settings.pop("name", None)
        async with self._changing:
            if self._projects.by_id(project_id) is not None:
                raise CallError(
                    409, f"There is a project {project_id} already.", code="project_exists", param="id"
                )
            made = self._judge(project_id, name, self._clock.wall(), settings)
            await self._keep_project(made)
        _audit("project.created", project_id)
        return self._describe(made.project)

    async def update(self, project_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change what the body names; null takes a setting back to its default."""
        given = dict(body)
        async with self._changing:
            stored = self._stored(project_id)
            name = _text(given, "name", MAX_NAME) if "name" in given else stored.name
            given.pop("name", None)
            settings = {
                key: value for key, value in {**stored.settings, **given}.items() if value is not None
            }
            made = self._judge(project_id, name, stored.created_at, settings)
            await self._keep_project(made)
        _audit("project.changed", project_id)
        return self._describe(made.project)

    async def delete(self, project_id: str) -> None:
        """Delete it with its keys and its webhook endpoints. Its calls go on, and stay on record."""
        async with self._changing:
            self._stored(project_id)
            if not await self._has_store().delete_project(project_id):
                raise _not_kept()
            self._projects.remove(project_id)
        self.on_deleted(project_id)
        self.on_change(self._projects.all())
        _audit("project.deleted", project_id)

    def keys(self, project_id: str) -> list[dict[str, Any]]:
        """Return a project's keys, without the keys themselves."""
        self._existing(project_id)
        return [describe_key(key) for key in self._projects.keys_of(project_id)]

    async def create_key(self, project_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a key, also for a project of the configuration. `key` is in this answer and nowhere else."""
        given = dict(body)
        name = _text(given, "name", MAX_NAME) if "name" in given else ""
        refuse_unknown(given, ("name",))
        async with self._changing:
            self._existing(project_id)
            if len(self._projects.keys_of(project_id)) >= MAX_KEYS:
                raise CallError(400, f"A project may have {MAX_KEYS} keys.", code="too_many_keys")
            secret = ids.api_key()
            key = ApiKey.of(secret, project_id, name, self._clock.wall())
            await self._keep_key(key)
        _audit("key.created", project_id, key_id=key.id)
        return {**describe_key(key), "key": secret}

    async def revoke_key(self, project_id: str, key_id: str) -> dict[str, Any]:
        """Have a key open nothing from now on. A second time changes nothing."""
        async with self._changing:
            self._existing(project_id)
            key = next((one for one in self._projects.keys_of(project_id) if one.id == key_id), None)
            if key is None:
                raise CallError(404, "No key of this project has that id.", code="key_not_found")
            if key.created_at is None:
                raise _managed_by_config(f"The key {key_id}", "api_keys")
            if key.revoked_at is None:
                key = replace(key, revoked_at=self._clock.wall())
                await self._keep_key(key)
                _audit("key.revoked", project_id, key_id=key.id)
        return describe_key(key)

    def _judge(
        self, project_id: str, name: str, created_at: float, settings: Mapping[str, Any]
    ) -> StoredProject:
        try:
            project = self._parse(project_id, settings)
        except SettingsError as error:
            place = error.param[:80]
            said = f"Invalid value for '{place}': {error}." if place else f"{error}."
            raise CallError(400, said, code="invalid_value", param=place or None) from None
        if clash := self._projects.clash(project):
            raise CallError(409, f"The {clash}.", code="project_clashes")
        return StoredProject(project, name, created_at, settings)

    async def _keep_project(self, made: StoredProject) -> None:
        kept = await self._has_store().save_project(
            made.project.id, made.name, made.created_at, made.settings
        )
        if not kept:
            raise _not_kept()
        self._projects.put(made)
        self.on_change(self._projects.all())

    async def _keep_key(self, key: ApiKey) -> None:
        if not await self._has_store().save_key(key):
            raise _not_kept()
        self._projects.put_key(key)

    def _has_store(self) -> TenantStore:
        if self._store is None:
            raise CallError(
                409,
                'This node keeps nothing (server.database = "none"): projects and keys are made in its configuration.',
                code="no_database",
            )
        return self._store

    def _existing(self, project_id: str) -> Project:
        project = self._projects.by_id(project_id)
        if project is None:
            raise CallError(404, "There is no such project.", code="project_not_found")
        return project

    def _stored(self, project_id: str) -> StoredProject:
        """Return a project that may be changed here."""
        self._existing(project_id)
        stored = self._projects.stored(project_id)
        if stored is None:
            raise _managed_by_config(f"The project {project_id}", "[[projects]]")
        return stored

    def _describe(self, project: Project) -> dict[str, Any]:
        return describe_project(project, self._projects.stored(project.id))


def describe_project(project: Project, stored: StoredProject | None) -> dict[str, Any]:
    """Return a project as the API shows it: no passwords."""
    fallback = project.fallback
    return {
        "object": "project",
        "id": project.id,
        "name": stored.name if stored else "",
        "managed_by": "api" if stored else "config",
        "created_at": int(stored.created_at) if stored else None,
        "numbers": list(project.numbers),
        "hosts": list(project.hosts),
        "max_calls": project.max_calls,
        "fallback": {"status": fallback.status, "accept": fallback.accept} if fallback else None,
        "trunks": [_trunk(trunk) for trunk in project.trunks],
        "passthrough": project.passthrough,
        "srtp": project.srtp,
        "refer_targets": list(project.refer_targets),
        "record": project.record,
        "capture": project.capture,
    }


def describe_key(key: ApiKey) -> dict[str, Any]:
    """Return a key as the API shows it; the key itself is not in it."""
    return {
        "object": "api_key",
        "id": key.id,
        "project_id": key.project_id,
        "name": key.name,
        "hint": key.hint,
        "managed_by": "config" if key.created_at is None else "api",
        "created_at": int(key.created_at) if key.created_at is not None else None,
        "revoked_at": int(key.revoked_at) if key.revoked_at is not None else None,
    }


def _trunk(trunk: Trunk) -> dict[str, Any]:
    return {
        "name": trunk.name,
        "sources": [str(source) for source in trunk.sources],
        "tls_hostname": trunk.tls_hostname,
        "digest_user": trunk.digest.user if trunk.digest else "",
        "register": {"registrar": trunk.register.registrar, "user": trunk.register.user}
        if trunk.register
        else None,
    }


def _text(body: Mapping[str, Any], name: str, limit: int) -> str:
    value = body[name]
    if not isinstance(value, str):
        raise CallError(
            400,
            f"Invalid type for '{name}': expected a string, but got {type_name(value)} instead.",
            code="invalid_type",
            param=name,
        )
    if len(value) > limit or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", value):
        raise CallError(
            400,
            f"Invalid value for '{name}': up to {limit} characters, no control characters.",
            code="invalid_value",
            param=name,
        )
    return value


def _managed_by_config(what: str, where: str) -> CallError:
    return CallError(
        409,
        f"{what} stands in the configuration's {where}: change it there, then send the node SIGHUP.",
        code="managed_by_config",
    )


def _not_kept() -> CallError:
    return CallError(
        503,
        "The database could not be written, so nothing has changed. `/readyz` says what is the matter.",
        code="store_unavailable",
        type="server_error",
        retry=True,
    )


def _audit(what: str, project_id: str, **more: str) -> None:
    log.info(
        "%s: %s", what.replace(".", " "), project_id,
        extra={"event": f"audit.{what}", "project_id": project_id, **more},
    )  # fmt: skip
