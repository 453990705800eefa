"""`GET /v1/realtime/refused_sources`: who was turned away before a call was made of it."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from .auth import authenticate
from .document import SECURITY
from .errors import documented
from .services import ServerServices
from .shapes import ListOf, RefusedSourceShown, found

__all__ = ["refused_router"]


def refused_router(services: ServerServices) -> APIRouter:
    """Return the route, relative to `/v1` and its like."""
    router = APIRouter(prefix="/realtime", tags=["calls"], redirect_slashes=False)

    async def list_refused_sources(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100,
    ) -> Response:
        """
        List the addresses that were turned away, the latest first, each with the line that would admit it.

        An address that some project lists is shown to the projects that list it. One that nobody lists is shown on
        a node with one project; with more of them it is the operator's, and stands in the node's log.
        """
        project = authenticate(request.headers, services.projects)
        found = services.calls.refused_sources(project.id)
        body = {
            "object": "list",
            "data": [entry.describe() for entry in found[:limit]],
            "has_more": len(found) > limit,
        }
        return Response(orjson.dumps(body), media_type="application/json")

    router.add_api_route(
        "/refused_sources",
        list_refused_sources,
        methods=["GET"],
        response_class=Response,
        responses={
            **found(ListOf[RefusedSourceShown]),
            **documented(400, 401),
        },
        openapi_extra=SECURITY,
        operation_id="list_refused_sources",
    )
    return router
