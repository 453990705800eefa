"""`/v1/webhook_endpoints` and `/v1/webhook_event_types` (API rows W20 to W27)."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError
from offhook.calls.event_types import EVENT_TYPES
from offhook.tenants import WebhookEndpoint

from .auth import authenticate
from .body import optional_object, read_json
from .document import SECURITY, json_body
from .endpoint_desk import MAX_NAME, MAX_URL, EndpointDesk
from .errors import documented
from .services import ServerServices
from .shapes import (
    Deleted,
    EventTypes,
    MadeEndpoint,
    PageOf,
    WebhookEndpointShown,
    WebhookTest,
    found,
)

__all__ = ["endpoint_router"]

_MEANINGS = {
    404: "No endpoint of this project has that id.",
    409: "The endpoint stands in the configuration, which alone changes it.",
    501: "This node keeps nothing.",
    502: "The endpoint did not answer.",
    503: "The database cannot be written at present. Nothing was changed.",
}
EndpointId = Annotated[str, Path(description="The endpoint's id.")]


def endpoint_router(services: ServerServices, *, azure: bool = False) -> APIRouter:
    """
    Return the routes, relative to `/v1` and its like.

    With `azure` they are its service's `/dashboard/webhook_endpoints`, whose `object` has a dot.
    """
    root = "/dashboard/webhook_endpoints" if azure else "/webhook_endpoints"
    router = APIRouter(tags=["webhooks"], redirect_slashes=False)
    if services.webhooks is None:
        return router
    routes = _Routes(services, services.webhooks.endpoints, azure)
    added: list[tuple[str, str, Any, tuple[int, ...], str]] = [
        ("POST", root, routes.create, (400, 401, 408, 413, 501, 503), "create_webhook_endpoint"),
        ("GET", root, routes.list, (400, 401), "list_webhook_endpoints"),
        ("GET", f"{root}/{{endpoint_id}}", routes.get, (401, 404), "get_webhook_endpoint"),
        (
            "POST",
            f"{root}/{{endpoint_id}}",
            routes.update,
            (400, 401, 404, 408, 409, 413, 503),
            "update_webhook_endpoint",
        ),
        ("DELETE", f"{root}/{{endpoint_id}}", routes.delete, (401, 404, 409, 503), "delete_webhook_endpoint"),
        (
            "POST",
            f"{root}/{{endpoint_id}}/rotate_secret",
            routes.rotate_secret,
            (400, 401, 404, 408, 409, 413, 503),
            "rotate_webhook_endpoint_secret",
        ),
        (
            "POST",
            f"{root}/{{endpoint_id}}/test",
            routes.test,
            (400, 401, 404, 408, 413, 502),
            "test_webhook_endpoint",
        ),
    ]
    if not azure:
        added.append(("GET", "/webhook_event_types", routes.event_types, (401,), "list_webhook_event_types"))
    for method, path, route, errors, name in added:
        router.add_api_route(
            path,
            route,
            methods=[method],
            response_class=Response,
            responses={
                **found(_SHAPES[name], "Done."),
                **documented(*errors, meanings=_MEANINGS),
            },
            openapi_extra={**SECURITY, **_BODIES.get(name, {})},
            operation_id=name + ("_azure" if azure else ""),
        )
    return router


_SHAPES: dict[str, type[BaseModel]] = {
    "create_webhook_endpoint": MadeEndpoint,
    "list_webhook_endpoints": PageOf[WebhookEndpointShown],
    "get_webhook_endpoint": WebhookEndpointShown,
    "update_webhook_endpoint": WebhookEndpointShown,
    "delete_webhook_endpoint": Deleted,
    "rotate_webhook_endpoint_secret": MadeEndpoint,
    "test_webhook_endpoint": WebhookTest,
    "list_webhook_event_types": EventTypes,
}
_PARTS: dict[str, Any] = {
    "name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME},
    "url": {"type": "string", "minLength": 1, "maxLength": MAX_URL, "description": "`https:`, public."},
    "event_types": {"type": "array", "minItems": 1, "items": {"type": "string", "enum": [*EVENT_TYPES]}},
}
_EXAMPLE = {
    "name": "calls",
    "url": "https://hooks.example.com/calls",
    "event_types": ["realtime.call.incoming"],
}
_BODIES = {
    "create_webhook_endpoint": json_body(
        "What to tell, and where.", {"required": [*_PARTS], "properties": _PARTS}, example=_EXAMPLE
    ),
    "update_webhook_endpoint": json_body("What to change.", {"properties": _PARTS}, required=False),
    "rotate_webhook_endpoint_secret": json_body(
        "May be left out.",
        {"properties": {"keep_old_secret_active_for_24_hours": {"type": "boolean", "default": False}}},
        required=False,
    ),
    "test_webhook_endpoint": json_body(
        "Which sample.",
        {
            "required": ["event_type"],
            "properties": {"event_type": {"type": "string", "enum": [*EVENT_TYPES]}},
        },
        example={"event_type": "realtime.call.incoming"},
    ),
}


class _Routes:
    def __init__(self, services: ServerServices, desk: EndpointDesk, azure: bool) -> None:
        self._projects = services.projects
        self._desk = desk
        self._azure = azure

    async def create(self, request: Request) -> Response:
        """Make an endpoint. Its signing secret is in this answer, and in no other."""
        project_id = self._authenticate(request)
        endpoint = await self._desk.create(project_id, await _body(request))
        return self._show(endpoint, with_secret=True)

    async def list(
        self,
        request: Request,
        after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
    ) -> Response:
        """List the project's endpoints, newest first; those of the configuration, too (`managed_by`)."""
        found, start = self._desk.all_of(self._authenticate(request)), 0
        if after is not None:
            places = [place for place, endpoint in enumerate(found) if endpoint.id == after]
            if not places:
                raise CallError(
                    400,
                    "Invalid value for 'after': no such webhook endpoint in this list.",
                    code="invalid_value",
                    param="after",
                )
            start = places[0] + 1
        page = found[start : start + limit]
        return _json(
            {
                "object": "list",
                "data": [self._desk.describe(endpoint, azure=self._azure) for endpoint in page],
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
                "has_more": len(found) > start + limit,
            }
        )

    async def get(self, request: Request, endpoint_id: EndpointId) -> Response:
        """Return one endpoint."""
        return self._show(self._desk.find(self._authenticate(request), endpoint_id))

    async def update(self, request: Request, endpoint_id: EndpointId) -> Response:
        """Change its name, URL or event types. What waits for it goes to the new URL."""
        project_id = self._authenticate(request)
        return self._show(await self._desk.update(project_id, endpoint_id, await _body(request)))

    async def delete(self, request: Request, endpoint_id: EndpointId) -> Response:
        """Delete it. What waits for it ends with that reason."""
        await self._desk.delete(self._authenticate(request), endpoint_id)
        kind = "webhook.endpoint.deleted" if self._azure else "webhook_endpoint.deleted"
        return _json({"id": endpoint_id, "object": kind, "deleted": True})

    async def rotate_secret(self, request: Request, endpoint_id: EndpointId) -> Response:
        """Give it a new signing secret, which is in this answer alone; the old one may sign for 24 hours more."""
        project_id = self._authenticate(request)
        endpoint = await self._desk.rotate_secret(project_id, endpoint_id, await _body(request))
        return self._show(endpoint, with_secret=True)

    async def test(self, request: Request, endpoint_id: EndpointId) -> Response:
        """Send a sample of an event type now, and say which HTTP status it was answered with."""
        project_id = self._authenticate(request)
        return _json(await self._desk.test(project_id, endpoint_id, await _body(request)))

    async def event_types(self, request: Request) -> Response:
        """List the event types that endpoints can be told of."""
        self._authenticate(request)
        return _json({"object": "list", "data": EVENT_TYPES})

    def _authenticate(self, request: Request) -> str:
        return authenticate(request.headers, self._projects).id

    def _show(self, endpoint: WebhookEndpoint, *, with_secret: bool = False) -> Response:
        return _json(self._desk.describe(endpoint, with_secret=with_secret, azure=self._azure))


async def _body(request: Request) -> dict[str, Any]:
    return optional_object(await read_json(request))


def _json(body: dict[str, Any]) -> Response:
    # A secret may be in it: no cache keeps it.
    return Response(orjson.dumps(body), media_type="application/json", headers={"cache-control": "no-store"})
