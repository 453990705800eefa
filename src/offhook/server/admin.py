"""`/admin/api`: what whoever runs the node may see and change, across all projects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError

from .admin_key import AdminKey
from .body import optional_object, read_json
from .call_directory import CallDirectory
from .call_list import ListQuery
from .document import json_body
from .errors import documented
from .explaining import CAPTURE, Keys, Rtp, capture_response
from .history import SPANS, history
from .project_desk import MAX_ID, MAX_NAME, ProjectDesk
from .refers import find_refer
from .services import KeptCaptures, ServerServices
from .shapes import (
    AnyCall,
    ApiKeyShown,
    CallRefer,
    CallTimeline,
    CallVerdict,
    CapacityHistory,
    CapacityShown,
    Deleted,
    ListOf,
    MadeApiKey,
    PageOf,
    ProjectShown,
    RefusedSourceShown,
    found,
)
from .timeline_response import timeline_response

__all__ = ["admin_router"]

Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]
Wanted = Annotated[str | None, Query(description="Of this project alone.")]
Route = Callable[..., Awaitable[Response]]


def admin_router(services: ServerServices, key: AdminKey, directory: CallDirectory) -> APIRouter:
    """Return the routes, which the admin key opens and no project's key does."""
    router = APIRouter(
        prefix="/admin/api",
        tags=["admin"],
        redirect_slashes=False,
        dependencies=[Depends(_only_with(key))],
    )

    def add(
        method: str,
        path: str,
        route: Route,
        *errors: int,
        shape: type[BaseModel] | str,
        body: dict[str, Any] | None = None,
    ) -> None:
        router.add_api_route(
            path,
            route,
            methods=[method],
            response_class=Response,
            responses={
                **found(shape, "Done."),
                **documented(*sorted({401, *errors, *((408, 413) if body else ())})),
            },
            openapi_extra={"security": [{"admin": []}], **(body or {})},
            operation_id=f"admin_{route.__name__}",
        )

    _add_calls(add, directory, services.captures)
    _add_node(add, services)
    if services.project_desk is not None:
        _add_projects(add, services.project_desk)
    return router


def _only_with(key: AdminKey) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.matches(given.strip()):
            raise CallError(
                401,
                "This takes the admin key, as Authorization: Bearer KEY. It is server.admin_key of the configuration, "
                "or in the file admin_key of the data_dir.",
                code="invalid_admin_key",
            )

    return check


def _add_calls(add: Callable[..., None], directory: CallDirectory, captures: KeptCaptures | None) -> None:
    async def list_calls(
        query: ListQuery, project: Wanted = None, limit: Limit = 20, after: str | None = None
    ) -> Response:
        """List the calls of all projects, newest first."""
        page = await directory.page(replace(query, project_id=project), after=after, limit=limit)
        return _json(page.to_api())

    async def get_call(call_id: str) -> Response:
        """Return what is known of a call."""
        return _json(await directory.describe(None, call_id))

    async def get_call_timeline(call_id: str) -> Response:
        """Return everything that happened to a call."""
        return await timeline_response(await directory.timeline(None, call_id), _PRIVATE)

    async def get_call_verdict(call_id: str) -> Response:
        """Say why a call went as it did."""
        return _json(await directory.verdict(None, call_id))

    async def get_call_capture(call_id: str, rtp: Rtp = False, keys: Keys = False) -> Response:
        """Return a call's SIP messages as a capture file for Wireshark; by choice its RTP and the keys of SRTP."""
        timeline = await directory.timeline(None, call_id)
        return await capture_response(call_id, timeline, captures, rtp=rtp, keys=keys)

    async def list_call_refers(call_id: str) -> Response:
        """Return a call's transfers."""
        return _list(await directory.refers(None, call_id))

    async def get_call_refer(call_id: str, number: int) -> Response:
        """Return one transfer."""
        return _json(find_refer(await directory.refers(None, call_id), number))

    add("GET", "/calls", list_calls, 400, shape=PageOf[AnyCall])
    add("GET", "/calls/{call_id:path}/timeline", get_call_timeline, 404, 503, shape=CallTimeline)
    add("GET", "/calls/{call_id:path}/verdict", get_call_verdict, 404, 503, shape=CallVerdict)
    add("GET", "/calls/{call_id:path}/pcap", get_call_capture, 400, 404, 409, 503, shape=CAPTURE)
    add("GET", "/calls/{call_id:path}/refers", list_call_refers, 404, 503, shape=ListOf[CallRefer])
    add("GET", "/calls/{call_id:path}/refers/{number}", get_call_refer, 400, 404, 503, shape=CallRefer)
    add("GET", "/calls/{call_id:path}", get_call, 404, 503, shape=AnyCall)


def _add_node(add: Callable[..., None], services: ServerServices) -> None:
    async def list_refused_sources(
        limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100,
    ) -> Response:
        """List all addresses that were turned away, the latest first, each with the line that would admit it."""
        found = services.calls.refused_sources(None)
        return _list([entry.describe() for entry in found[:limit]], has_more=len(found) > limit)

    async def get_capacity() -> Response:
        """Return how much of the node is taken: calls, media ports, engine slots, what the database has to write."""
        return _json({"object": "capacity", **services.capacity()})

    async def get_capacity_history(
        hours: Annotated[int, Query(description="How far back.", json_schema_extra={"enum": [*SPANS]})] = 6,
    ) -> Response:
        """Return, for each period of the last hours, its calls, their ends, set-up time and sound."""
        return _json(await history(services, hours))

    add("GET", "/refused_sources", list_refused_sources, 400, shape=ListOf[RefusedSourceShown])
    add("GET", "/capacity/history", get_capacity_history, 400, 409, 503, shape=CapacityHistory)
    add("GET", "/capacity", get_capacity, shape=CapacityShown)


def _add_projects(add: Callable[..., None], desk: ProjectDesk) -> None:
    async def list_projects() -> Response:
        """List all projects, the configuration's first."""
        return _list(await desk.all())

    async def create_project(request: Request) -> Response:
        """Make a project: `id` and `name` if you like, and what `[[projects]]` of the configuration holds."""
        return _json(await desk.create(await _object(request)))

    async def get_project(project_id: str) -> Response:
        """Return one project."""
        return _json(desk.find(project_id))

    async def update_project(request: Request, project_id: str) -> Response:
        """Change what the body names; null takes a setting back to its default."""
        return _json(await desk.update(project_id, await _object(request)))

    async def delete_project(project_id: str) -> Response:
        """Delete a project with its keys and its webhook endpoints. Its calls go on, and stay on record."""
        await desk.delete(project_id)
        return _json({"object": "project.deleted", "id": project_id, "deleted": True})

    async def list_keys(project_id: str) -> Response:
        """List a project's keys, revoked ones too. None of them can be read from it."""
        return _list(desk.keys(project_id))

    async def create_key(request: Request, project_id: str) -> Response:
        """Make a key, also for a project of the configuration. `key` is in this answer and nowhere else."""
        return _json(await desk.create_key(project_id, await _object(request)))

    async def revoke_key(project_id: str, key_id: str) -> Response:
        """Have a key open nothing from now on. Sidebands that it opened stay open."""
        return _json(await desk.revoke_key(project_id, key_id))

    add("GET", "/projects", list_projects, shape=ListOf[ProjectShown])
    add("POST", "/projects", create_project, 400, 409, 503, shape=ProjectShown, body=_NEW_PROJECT)
    add("GET", "/projects/{project_id}", get_project, 404, shape=ProjectShown)
    add(
        "POST",
        "/projects/{project_id}",
        update_project,
        400,
        404,
        409,
        503,
        shape=ProjectShown,
        body=_PROJECT,
    )
    add("DELETE", "/projects/{project_id}", delete_project, 404, 409, 503, shape=Deleted)
    add("GET", "/projects/{project_id}/keys", list_keys, 404, shape=ListOf[ApiKeyShown])
    add("POST", "/projects/{project_id}/keys", create_key, 400, 404, 409, 503, shape=MadeApiKey, body=_KEY)
    add("DELETE", "/projects/{project_id}/keys/{key_id}", revoke_key, 404, 409, 503, shape=ApiKeyShown)


_NAME: dict[str, Any] = {"name": {"type": "string", "maxLength": MAX_NAME}}
_SETTINGS = "What `[[projects]]` of the configuration holds, besides"
_NEW_PROJECT = json_body(
    f"{_SETTINGS} an id, if it shall not be made up, and a name.",
    {"properties": {"id": {"type": "string", "minLength": 1, "maxLength": MAX_ID}, **_NAME}},
    required=False,
    closed=False,
)
_PROJECT = json_body(
    f"{_SETTINGS} its name: what is to change.", {"properties": _NAME}, required=False, closed=False
)
_KEY = json_body("May be left out.", {"properties": _NAME}, required=False)


async def _object(request: Request) -> dict[str, Any]:
    return optional_object(await read_json(request))


_PRIVATE = {"cache-control": "no-store"}
"Keys are in some of the answers."


def _list(data: list[dict[str, Any]], *, has_more: bool = False) -> Response:
    return _json({"object": "list", "data": data, "has_more": has_more})


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body, default=str), media_type="application/json", headers=_PRIVATE)
