"""`GET /metrics`, in Prometheus' text format: who may read it, and how requests are counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError
from offhook.metrics import Metrics

from .admin_key import AdminKey
from .errors import documented
from .route_template import template_of

if TYPE_CHECKING:
    from .services import ServerServices

__all__ = ["MetricsReaders", "RequestCount", "metrics_router"]

MetricsReaders = Literal["local", "key", "open", "off"]
"""
Who may read: `local`, this machine without a key and others with the admin key; `key`, the admin key alone; `open`,
whoever reaches the port; `off`, nobody.
"""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


def metrics_router(services: ServerServices) -> APIRouter:
    router = APIRouter(tags=["health"], redirect_slashes=False)
    exposition, readers = services.exposition, services.metrics_for
    if exposition is not None and readers != "off":
        _add(router, exposition, readers, services.admin_key)
    return router


def _add(
    router: APIRouter,
    exposition: Callable[[], Awaitable[bytes]],
    readers: MetricsReaders,
    admin_key: AdminKey | None,
) -> None:
    @router.get(
        "/metrics",
        operation_id="metrics",
        response_class=Response,
        openapi_extra={"security": [{}, {"admin": []}]},
        responses={
            200: {"content": {"text/plain": {}}},
            **documented(401, meanings={401: "Not from there; `message` says how."}),
        },
    )
    async def metrics(request: Request) -> Response:
        """
        What the node counts, for Prometheus.

        By default readable without a key from this machine, and with the admin key from elsewhere (`server.metrics`).
        """
        if not _may_read(request, readers, admin_key):
            raise CallError(
                401,
                "Metrics are for the operator: ask from the node's own machine, or send the admin key as "
                "Authorization: Bearer, or set server.metrics.",
                code="invalid_api_key",
            )
        return Response(await exposition(), media_type=CONTENT_TYPE)


def _may_read(request: Request, readers: MetricsReaders, admin_key: AdminKey | None) -> bool:
    if readers == "open":
        return True
    if readers == "local" and _is_local(request):
        return True
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return admin_key is not None and scheme.lower() == "bearer" and admin_key.matches(given.strip())


def _is_local(request: Request) -> bool:
    """Whether the asker is this machine, and not a proxy on it that asks for somebody else."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    return address.is_loopback


class RequestCount:
    """One request on its way: `answered` with the status, then `ended`."""

    __slots__ = ("_counted", "_metrics", "_open", "_scope", "_started_at")

    def __init__(self, metrics: Metrics, scope: Mapping[str, Any], started_at: float) -> None:
        self._metrics = metrics
        self._scope = scope
        self._started_at = started_at
        self._counted = False
        self._open: str | None = None

    def answered(self, status: int, now: float) -> None:
        """Count the answer, or the upgrade (101) of a WebSocket, which is then open."""
        if self._counted:
            return
        self._counted = True
        route = template_of(self._scope)
        method = self._scope.get("method", "GET")
        self._metrics.count(
            "offhook_http_requests", method if method in _METHODS else "other", route, f"{status // 100}xx"
        )
        self._metrics.observe("offhook_http_request_seconds", now - self._started_at, route)
        if status == 101:
            self._open = "sideband" if b"call_id=" in self._scope.get("query_string", b"") else "session"
            self._metrics.count("offhook_websockets", self._open)

    def ended(self) -> None:
        if self._open is not None:
            self._metrics.count("offhook_websockets", self._open, by=-1)
