"""Webhook endpoints that were made by API, on the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, select

from offhook.tenants import WebhookEndpoint

from .database import Database, upsert
from .schema import webhook_endpoints as table

__all__ = ["StoredEndpoints", "read_endpoints"]


def read_endpoints(connection: Connection) -> list[tuple[str, WebhookEndpoint]]:
    """Return them with their projects' ids, oldest first."""
    rows = connection.execute(select(table).order_by(table.c.created_at, table.c.id)).all()
    return [(row.project_id, _endpoint(row)) for row in rows]


class StoredEndpoints:
    """An `EndpointStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> list[tuple[str, WebhookEndpoint]]:
        return await self._database.read(read_endpoints)

    async def save(self, project_id: str, endpoint: WebhookEndpoint) -> bool:
        row = _row(project_id, endpoint)
        return await self._database.keep(lambda connection: upsert(connection, table, row))

    async def delete(self, project_id: str, endpoint: WebhookEndpoint) -> bool:
        statement = delete(table).where(table.c.id == endpoint.id)
        return await self._database.keep(lambda connection: connection.execute(statement))


def _row(project_id: str, endpoint: WebhookEndpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "project_id": project_id,
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": sorted(endpoint.events),
        "secret": endpoint.secrets[0],
        "old_secrets": list(zip(endpoint.secrets[1:], endpoint.old_secrets_until, strict=True)),
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
    }


def _endpoint(row: Row[Any]) -> WebhookEndpoint:
    old = row.old_secrets or []
    return WebhookEndpoint(
        id=row.id,
        url=row.url,
        secrets=(row.secret, *(secret for secret, _ in old)),
        events=frozenset(row.event_types),
        name=row.name,
        configured=False,
        old_secrets_until=tuple(until for _, until in old),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
