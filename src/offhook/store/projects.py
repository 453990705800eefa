"""Projects and keys that were made by API, on the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, select

from offhook.tenants import ApiKey

from . import schema
from .database import Database, upsert
from .json_text import Json

__all__ = ["StoredTenants", "read_projects"]


def read_projects(connection: Connection) -> list[tuple[str, str, float, Mapping[str, Any]]]:
    """Return id, name, time and settings of each, oldest first."""
    table = schema.projects
    query = select(table.c.id, table.c.name, table.c.created_at, table.c.settings)
    rows = connection.execute(query.order_by(table.c.created_at)).all()
    return [(row.id, row.name, row.created_at, row.settings) for row in rows]


class StoredTenants:
    """A `TenantStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def projects(self) -> list[tuple[str, str, float, Mapping[str, Any]]]:
        return await self._database.read(read_projects)

    async def keys(self) -> list[ApiKey]:
        query = select(schema.api_keys)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [
            ApiKey(row.id, row.project_id, row.name, row.hint, row.hash, row.created_at, row.revoked_at)
            for row in rows
        ]

    async def save_project(
        self, project_id: str, name: str, created_at: float, settings: Mapping[str, Any]
    ) -> bool:
        row = {"id": project_id, "name": name, "created_at": created_at, "settings": Json.of(settings)}
        return await self._database.keep(lambda connection: upsert(connection, schema.projects, row))

    async def delete_project(self, project_id: str) -> bool:
        def work(connection: Connection) -> None:
            for table in (schema.api_keys, schema.webhook_endpoints):
                connection.execute(delete(table).where(table.c.project_id == project_id))
            connection.execute(delete(schema.projects).where(schema.projects.c.id == project_id))

        return await self._database.keep(work)

    async def save_key(self, key: ApiKey) -> bool:
        row = {
            "id": key.id,
            "project_id": key.project_id,
            "name": key.name,
            "hash": key.hash,
            "hint": key.hint,
            "created_at": key.created_at,
            "revoked_at": key.revoked_at,
        }
        return await self._database.keep(lambda connection: upsert(connection, schema.api_keys, row))
