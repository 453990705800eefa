"""Which secrets a configuration and a project hold, so that the log can leave them out. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from offhook.config import Config, ConfigError
from offhook.tenants import Project

__all__ = ["secrets_of", "secrets_of_project"]

TOKEN: Final = 16
"Characters of a URL's parameter from which on it is taken for a token, and not for a name."


def secrets_of(config: Config) -> Iterator[str]:
    """Yield what the configuration holds besides its projects."""
    yield config.server.admin_key
    yield from _in_url(config.server.database)
    yield config.engine.brain.api_key
    yield from _in_url(config.engine.brain.base_url)
    for name, upstream in config.upstreams.items():
        try:
            yield upstream.to_upstream(name).key
        except ConfigError:
            continue  # said where it is used


def secrets_of_project(project: Project) -> Iterator[str]:
    yield from project.api_keys
    for endpoint in project.webhooks:
        yield from endpoint.secrets
        yield from _in_url(endpoint.url)
    for trunk in project.trunks:
        if trunk.digest is not None:
            yield trunk.digest.password
        if trunk.register is not None:
            yield trunk.register.password


def _in_url(url: str) -> Iterator[str]:
    """Yield the password of a URL, and the tokens that its parameters carry."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    yield unquote(parts.password or "")
    yield from (value for _, value in parse_qsl(parts.query) if len(value) >= TOKEN)
