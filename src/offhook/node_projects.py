"""The projects of a node: read from its configuration, made by API, and both in one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from offhook.clock import Clock
from offhook.config import Config, ConfigError, ProjectTable, generated_project
from offhook.known_secrets import secrets_of_project
from offhook.logs import SECRETS
from offhook.server import ProjectDesk, SettingsError
from offhook.store import Database
from offhook.store.projects import StoredTenants
from offhook.tenants import JoinedProjects, Project

__all__ = ["NodeProjects"]

log = logging.getLogger("offhook.node")

_NOT_BY_API = {
    "api_keys": "keys are made by POST .../keys",
    "webhooks": "endpoints are made by POST /v1/webhook_endpoints with a key of the project",
}


class NodeProjects:
    """
    `known` answers for all; `notices` is what `serve` prints about them, secrets that were made just now included.

    Raises `ConfigError` when made or read again, and `OSError`.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._upstreams = {config.server.passthrough, *(one.passthrough for one in config.projects)}
        self.notices: list[str] = []
        self.known = JoinedProjects(self._read(config))

    async def open_desk(self, database: Database | None, clock: Clock) -> ProjectDesk:
        """Take what was made by API in earlier runs, and return who makes more."""
        store = StoredTenants(database) if database is not None else None
        desk = ProjectDesk(self.known, store, parse=self._parse, clock=clock)
        await desk.load()
        self._warn_of_clashes()
        return desk

    def reload(self, config: Config) -> None:
        """Take the configuration's projects as they are now; those made by API stay."""
        for project in config.projects:
            self._check_upstream(project)
        self.known.replace(self._read(config))
        self._warn_of_clashes()

    def _warn_of_clashes(self) -> None:
        for stored in self.known.overshadowed():
            log.warning(
                "project %s, made by API: the configuration has %s, which counts",
                stored.project.id,
                self.known.clash(stored.project) or "a project of that id",
                extra={"event": "project.overshadowed", "project_id": stored.project.id},
            )

    def _read(self, config: Config) -> list[Project]:
        tables = config.projects
        if not tables:
            tables = (self._generated(self._config.server.data_dir),)
        return [_learned(table.to_project()) for table in tables]

    def _generated(self, data_dir: Path) -> ProjectTable:
        project, path, made = generated_project(data_dir)
        if made:
            self.notices += [
                f"made project {project.id}; kept in {path}:",
                f"  OPENAI_API_KEY={project.api_keys[0]}",
                f"  OPENAI_WEBHOOK_SECRET={project.webhooks[0].secret}",
                f"  webhook to {project.webhooks[0].url}",
            ]
        else:
            self.notices.append(f"project {project.id}: its key and webhook secret are in {path}")
        return project

    def _check_upstream(self, project: ProjectTable) -> None:
        if project.passthrough and project.passthrough not in self._upstreams:
            raise ConfigError(
                f"projects.{project.id}.passthrough: no project used {project.passthrough!r} when this node "
                "started, so it takes a restart"
            )

    def _parse(self, project_id: str, settings: Mapping[str, Any]) -> Project:
        for name, remedy in _NOT_BY_API.items():
            if name in settings:
                raise SettingsError(name, remedy)
        for number, trunk in enumerate(_tables(settings.get("trunks"))):
            for name in ("digest_password_env", "digest_password_file"):
                if name in trunk:
                    # Who may make projects may not thereby read files and variables of the node.
                    raise SettingsError(f"trunks.{number}.{name}", "give digest_password itself")
            if trunk.get("register") is not None:
                raise SettingsError(
                    f"trunks.{number}.register", "a trunk that registers stands in the configuration"
                )
        try:
            table = ProjectTable.model_validate({**settings, "id": project_id})
            self._config.judge(table)
            self._check_upstream(table)
            return _learned(table.to_project())
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            known = "no such setting" if first["type"] == "extra_forbidden" else first["msg"]
            raise SettingsError(place, known.removeprefix("Value error, ")) from None
        except (ValueError, ConfigError) as error:
            raise SettingsError("", str(error)) from None


def _learned(project: Project) -> Project:
    """Have the log leave out what is secret of it."""
    SECRETS.learn(secrets_of_project(project))
    return project


def _tables(given: object) -> list[Mapping[str, Any]]:
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list | tuple) else []
