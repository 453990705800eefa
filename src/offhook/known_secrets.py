"""Which secrets a configuration and a project hold, so that the log can leave them out. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from offhook.config import Config, ConfigError
from offhook.tenants import Project

__all__ = ["secrets_of", "secrets_of_project"]


def secrets_of(config: Config) -> Iterator[str]:
    """Yield what the configuration holds besides its projects."""
    yield config.server.admin_key
    yield config.engine.brain.api_key
    for name, upstream in config.upstreams.items():
        try:
            yield upstream.to_upstream(name).key
        except ConfigError:
            continue  # said where it is used


def secrets_of_project(project: Project) -> Iterator[str]:
    yield from project.api_keys
    for endpoint in project.webhooks:
        yield from endpoint.secrets
    for trunk in project.trunks:
        if trunk.digest is not None:
            yield trunk.digest.password
        if trunk.register is not None:
            yield trunk.register.password
