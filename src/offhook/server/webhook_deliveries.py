"""`/v1/webhook_deliveries`: what became of each event, and once more from the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError
from offhook.tenants import AttemptRecord, Deliveries, DeliveryQuery, DeliveryRecord, EventRecord

from .auth import authenticate
from .document import SECURITY
from .errors import documented
from .services import ServerServices
from .shapes import PageOf, WebhookDelivery, WebhookDeliveryAttempts, found

__all__ = ["STATES", "delivery_router", "describe_attempt", "describe_delivery"]

STATES = ("waiting", "delivered", "expired", "exhausted")
_MEANINGS = {
    404: "No delivery of this project has that id.",
    409: "The endpoint is gone, or an attempt is under way.",
}
_SHAPES: dict[str, type[BaseModel]] = {
    "list_webhook_deliveries": PageOf[WebhookDelivery],
    "get_webhook_delivery": WebhookDeliveryAttempts,
    "redeliver_webhook": WebhookDelivery,
}
DeliveryId = Annotated[str, Path(description="The delivery's id, `whd_...`.")]


def describe_delivery(event: EventRecord, delivery: DeliveryRecord) -> dict[str, Any]:
    """Return a delivery as the API shows it."""
    return {
        "id": delivery.id,
        "object": "webhook_delivery",
        "event_id": event.id,
        "event_type": event.type,
        "call_id": event.call_id,
        "webhook_endpoint_id": delivery.endpoint_id,
        "url": delivery.url,
        "state": delivery.state,
        "attempt_count": delivery.attempts,
        "last_status": delivery.last_status,
        "last_error": delivery.last_error,
        "created_at": delivery.created_at,
        "next_attempt_at": delivery.due_at,
        "finished_at": delivery.finished_at,
    }


def delivery_router(services: ServerServices) -> APIRouter:
    """Return the routes, relative to `/v1` and its like."""
    router = APIRouter(tags=["webhooks"], redirect_slashes=False)
    if services.webhooks is None or services.webhooks.deliveries is None:
        return router
    routes = _Routes(services, services.webhooks.deliveries, services.webhooks.redeliver)
    path = "/webhook_deliveries"
    added: list[tuple[str, str, Any, tuple[int, ...], str]] = [
        ("GET", path, routes.search, (400, 401), "list_webhook_deliveries"),
        ("GET", f"{path}/{{delivery_id}}", routes.get, (401, 404), "get_webhook_delivery"),
        ("POST", f"{path}/{{delivery_id}}/redeliver", routes.again, (401, 404, 409), "redeliver_webhook"),
    ]
    for method, at, route, errors, name in added:
        router.add_api_route(
            at,
            route,
            methods=[method],
            response_class=Response,
            responses={
                **found(_SHAPES[name], "Done."),
                **documented(*errors, meanings=_MEANINGS),
            },
            openapi_extra=SECURITY,
            operation_id=name,
        )
    return router


class _Routes:
    def __init__(
        self,
        services: ServerServices,
        deliveries: Deliveries,
        redeliver: Callable[[EventRecord, DeliveryRecord], DeliveryRecord],
    ) -> None:
        self._projects = services.projects
        self._deliveries = deliveries
        self._redeliver = redeliver

    async def search(
        self,
        request: Request,
        call_id: Annotated[str | None, Query(description="Of one call.")] = None,
        event_type: Annotated[str | None, Query(description="Of one type of event.")] = None,
        state: Annotated[
            str | None, Query(description="What has become of it.", json_schema_extra={"enum": [*STATES]})
        ] = None,
        webhook_endpoint_id: Annotated[str | None, Query(description="To one endpoint.")] = None,
        after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
    ) -> Response:
        """List deliveries, newest first: one for each event and endpoint."""
        project = authenticate(request.headers, self._projects)
        if state is not None and state not in STATES:
            raise CallError(
                400,
                f"Invalid value for 'state': it is one of {', '.join(STATES)}.",
                code="invalid_value",
                param="state",
            )
        query = DeliveryQuery(project.id, call_id, event_type, webhook_endpoint_id, state, after, limit + 1)
        found = await self._deliveries.search(query)
        if found is None:
            raise CallError(
                400,
                "Invalid value for 'after': no such delivery.",
                code="invalid_value",
                param="after",
            )
        page = [describe_delivery(event, delivery) for event, delivery in found[:limit]]
        return _json(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": len(found) > limit,
            }
        )

    async def get(self, request: Request, delivery_id: DeliveryId) -> Response:
        """Return a delivery with each of its attempts."""
        event, delivery, attempts = await self._find(request, delivery_id)
        shown = describe_delivery(event, delivery)
        return _json(shown | {"attempts": [describe_attempt(attempt) for attempt in attempts]})

    async def again(self, request: Request, delivery_id: DeliveryId) -> Response:
        """
        Deliver the event to the endpoint once more: the same `webhook-id` and body, signed anew.

        What still waits for its next attempt has it now. Else it is a new delivery, which is answered with.
        """
        event, delivery, _ = await self._find(request, delivery_id)
        return _json(describe_delivery(event, self._redeliver(event, delivery)))

    async def _find(
        self, request: Request, delivery_id: str
    ) -> tuple[EventRecord, DeliveryRecord, list[AttemptRecord]]:
        project = authenticate(request.headers, self._projects)
        found = await self._deliveries.find(project.id, delivery_id)
        if found is None:
            raise CallError(
                404, "No delivery of this project has that id.", code="webhook_delivery_not_found"
            )
        return found


def describe_attempt(attempt: AttemptRecord) -> dict[str, Any]:
    """Return one attempt as the API shows it."""
    return {
        "number": attempt.number,
        "started_at": attempt.started_at,
        "duration_ms": round(attempt.duration_ms, 1),
        "status": attempt.status,
        "error": attempt.error,
    }


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")
