"""`/v1/realtime/calls`: what an app asks of a call (API rows R01 to R24), and what it may see of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError
from offhook.tenants import Project

from .auth import authenticate, key_id_of
from .body import optional_object, read_json, refuse_unknown, type_name
from .call_directory import CallDirectory
from .call_list import ListQuery
from .context import request_id_of
from .document import SECURITY, json_body
from .dtmf import DTMF_SCHEMA, digit_order
from .errors import documented
from .explaining import CAPTURE, Keys, Rtp, capture_response
from .passthrough import Screen
from .refers import REFER_BODY, ReferAudit, find_refer, refer_target, refer_under_way, screen_refer
from .rest_entry import rest_entry
from .services import ServerServices
from .shapes import AnyCall, CallRefer, CallTimeline, CallVerdict, ListOf, PageOf, found
from .timeline_response import timeline_response

if TYPE_CHECKING:
    from offhook.calls.call import Call

__all__ = ["CallRoutes"]

CallId = Annotated[str, Path(description="The call's id, as `realtime.call.incoming` gave it. Opaque.")]

Act = Callable[["Call", Any], Awaitable[Response | None]]


class CallRoutes:
    """The routes, relative to a prefix: `/v1`, `/openai/v1` and `/openai` have the same."""

    def __init__(self, services: ServerServices, directory: CallDirectory) -> None:
        self._directory = directory
        self._projects = services.projects
        self._calls = services.calls
        self._clock = services.clock
        self._passthrough = services.passthrough
        self._captures = services.captures

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/realtime", tags=["calls"], redirect_slashes=False)
        self._add_verbs(router)
        self._add_views(router)
        # Not served yet, and said so: the path is the hosted API's own.
        router.add_api_route(
            "/calls",
            self.create,
            methods=["POST"],
            status_code=501,
            response_class=Response,
            responses=documented(401, 501),
            openapi_extra=SECURITY,
            operation_id="create_call",
        )
        return router

    def _add_verbs(self, router: APIRouter) -> None:
        for verb, route, errors, body in (
            ("accept", self.accept, (400, 401, 404, 408, 409, 413, 503), _ACCEPT),
            ("reject", self.reject, (400, 401, 404, 408, 409, 413), _REJECT),
            ("refer", self.refer, (400, 401, 403, 404, 408, 409, 413, 502, 504), REFER_BODY),
            ("hangup", self.hangup, (401, 404), {}),
            ("dtmf", self.dtmf, (400, 401, 404, 408, 409, 413, 502, 504), _DTMF),
        ):
            done: dict[int | str, dict[str, Any]] = {200: {"description": "Done. The body is empty."}}
            if verb == "refer":
                done[202] = {
                    "description": "It waits for the agent's last word; `Location` says where it is shown."
                }
            # A path's parameter takes slashes too: an id is opaque, and %2F in it is decoded before routing.
            router.add_api_route(
                f"/calls/{{call_id:path}}/{verb}",
                route,
                methods=["POST"],
                response_class=Response,
                responses={**done, **documented(*errors)},
                openapi_extra={**SECURITY, **body},
                operation_id=f"{verb}_call",
            )

    def _add_views(self, router: APIRouter) -> None:
        views: list[tuple[str, Any, type[BaseModel] | str, tuple[int, ...], str]] = [
            ("", self.list_calls, PageOf[AnyCall], (400, 401), "list_calls"),
            ("/{call_id:path}/timeline", self.timeline, CallTimeline, (401, 404, 503), "get_call_timeline"),
            ("/{call_id:path}/verdict", self.verdict, CallVerdict, (401, 404, 503), "get_call_verdict"),
            ("/{call_id:path}/pcap", self.pcap, CAPTURE, (400, 401, 404, 409, 503), "get_call_capture"),
            (
                "/{call_id:path}/refers",
                self.list_refers,
                ListOf[CallRefer],
                (401, 404, 503),
                "list_call_refers",
            ),
            (
                "/{call_id:path}/refers/{number}",
                self.get_refer,
                CallRefer,
                (400, 401, 404, 503),
                "get_call_refer",
            ),
            ("/{call_id:path}", self.get, AnyCall, (401, 404, 503), "get_call"),
        ]
        for path, route, shape, errors, name in views:
            router.add_api_route(
                f"/calls{path}",
                route,
                methods=["GET"],
                response_class=Response,
                responses={**found(shape), **documented(*errors)},
                openapi_extra=SECURITY,
                operation_id=name,
            )

    async def accept(self, request: Request, call_id: CallId) -> Response:
        """
        Accept the call with a session's configuration.

        The whole body is judged now: a wrong one is a 400 with `code` and `param`, and the call still rings. 200 means
        that an engine is reserved; the phone is answered as soon as it is warm. A second accept of the same call
        answers 200 and does nothing.
        """

        async def act(call: Call, body: Any) -> None:
            await call.accept({} if body is None else body)

        return await self._do("accept", request, call_id, act)

    async def reject(self, request: Request, call_id: CallId) -> Response:
        """Reject the call while it rings. The status goes to the caller's side; without one it is 603."""

        async def act(call: Call, body: Any) -> None:
            await call.reject(_reject_status(optional_object(body)), repeated=_is_repeat(request))

        return await self._do("reject", request, call_id, act)

    async def refer(
        self,
        request: Request,
        call_id: CallId,
        wait_for_playout: Annotated[
            bool, Query(description="Send the REFER when the caller has heard what the agent is saying.")
        ] = False,
    ) -> Response:
        """
        Transfer the caller: sends a SIP REFER.

        200 means that the peer took it (2xx), which is not yet a completed transfer: that is told by
        `realtime.call.refer.updated` and `GET .../refers/{number}`. Anything else is an error within 8 s that has the
        peer's status in `details`; with `wait_for_playout` also 202, when the agent still speaks by then.
        """
        project = self._authenticate(request)
        audit = ReferAudit(request, project, key_id_of(request.headers, self._projects), call_id)

        async def act(call: Call, body: Any) -> Response | None:
            with audit:
                audit.target = target = refer_target(optional_object(body))
                taken = await call.refer(
                    target,
                    repeated=_is_repeat(request),
                    wait_for_playout=wait_for_playout,
                    request_id=request_id_of(request.scope),
                )
            return None if taken else refer_under_way(request, call.refers())

        def screen(body: bytes) -> bytes:
            with audit:
                return screen_refer(body, project, audit)

        return await self._do("refer", request, call_id, act, screen=screen)

    async def hangup(self, request: Request, call_id: CallId) -> Response:
        """End the call: BYE once answered, 480 while it rings. A body is ignored."""

        async def act(call: Call, body: Any) -> None:
            await call.hangup(repeated=_is_repeat(request))

        return await self._do("hangup", request, call_id, act, has_body=False)

    async def dtmf(self, request: Request, call_id: CallId) -> Response:
        """
        Press keys on the line to the caller: digits and pauses, at once; the agent's speech waits meanwhile.

        200 means that they are on their way; with SIP INFO, that the peer has taken each of them.
        """

        async def act(call: Call, body: Any) -> None:
            await call.dtmf(digit_order(optional_object(body)), repeated=_is_repeat(request))

        return await self._do("dtmf", request, call_id, act)

    async def list_calls(
        self,
        request: Request,
        query: ListQuery,
        limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
        after: Annotated[str | None, Query(description="Start behind this call id.")] = None,
    ) -> Response:
        """
        List the project's calls, newest first, those of earlier runs too; hosted ones are marked.

        `incomplete` is there only when past calls could not be read, and says why.
        """
        project = self._authenticate(request)
        page = await self._directory.page(replace(query, project_id=project.id), after=after, limit=limit)
        return _json(page.to_api())

    async def get(self, request: Request, call_id: CallId) -> Response:
        """Return what is known of a call: who, when, its session, its transfers, how it ended."""
        project = self._authenticate(request)
        return _json(await self._directory.describe(project.id, call_id))

    async def list_refers(self, request: Request, call_id: CallId) -> Response:
        """Return the call's transfers, from the first: each step of each, with its time."""
        project = self._authenticate(request)
        found = await self._directory.refers(project.id, call_id)
        return _json({"object": "list", "data": found, "has_more": False})

    async def get_refer(
        self,
        request: Request,
        call_id: CallId,
        number: Annotated[int, Path(description="Which of the call's transfers; from 1.")],
    ) -> Response:
        """Return one transfer: where to, what has become of it, and each step with its time."""
        project = self._authenticate(request)
        return _json(find_refer(await self._directory.refers(project.id, call_id), number))

    async def timeline(self, request: Request, call_id: CallId) -> Response:
        """Return everything that happened to a call: SIP messages, webhook attempts, requests, turns, its end."""
        project = self._authenticate(request)
        return await timeline_response(await self._directory.timeline(project.id, call_id))

    async def verdict(self, request: Request, call_id: CallId) -> Response:
        """Say why the call went as it did: a sentence, whose affair it is, what would help, and what shows it."""
        project = self._authenticate(request)
        return _json(await self._directory.verdict(project.id, call_id))

    async def pcap(self, request: Request, call_id: CallId, rtp: Rtp = False, keys: Keys = False) -> Response:
        """Return the call's SIP messages as a capture file for Wireshark; by choice its RTP and the keys of SRTP."""
        project = self._authenticate(request)
        timeline = await self._directory.timeline(project.id, call_id)
        return await capture_response(call_id, timeline, self._captures, rtp=rtp, keys=keys)

    async def create(self, request: Request) -> Response:
        """Calls by WebRTC are not served yet (API row R25)."""
        self._authenticate(request)
        raise CallError(
            501,
            "This node takes calls by SIP; calls by WebRTC are not served.",
            code="not_supported",
            type="server_error",
        )

    def _authenticate(self, request: Request) -> Project:
        return authenticate(request.headers, self._projects)

    async def _do(
        self,
        verb: str,
        request: Request,
        call_id: str,
        act: Act,
        *,
        has_body: bool = True,
        screen: Screen | None = None,
    ) -> Response:
        """
        Do what was asked; the call's timeline gets the request and how it went.

        `screen` judges the body of a request that goes on to another service.
        """
        started_at = self._clock.monotonic()
        project = self._authenticate(request)
        if self._passthrough and (
            destination := self._passthrough.destination(project, call_id, request.headers)
        ):
            return await self._passthrough.relay(destination, project, call_id, verb, request, screen)
        call = self._calls.find(project.id, call_id)
        with rest_entry(call.timeline, self._clock, verb, request, started_at=started_at) as entry:
            answer = await act(call, await read_json(request) if has_body else None) or Response()
            entry.answered(answer.status_code)
        return answer


def _is_repeat(request: Request) -> bool:
    """Whether an SDK says that it sends this request again, since it got no answer, or not a good one."""
    return request.headers.get("x-stainless-retry-count", "0") != "0"


def _reject_status(body: dict[str, Any]) -> int:
    refuse_unknown(body, ("status_code",))
    status = body.get("status_code")
    if status is None:
        return 603
    if isinstance(status, bool) or not isinstance(status, int):
        raise CallError(
            400,
            f"Invalid type for 'status_code': expected an integer, but got {type_name(status)} instead.",
            code="invalid_type",
            param="status_code",
        )
    if not 300 <= status <= 699:
        raise CallError(
            400,
            f"Invalid value for 'status_code': {status} is not a SIP status from 300 to 699.",
            code="invalid_value",
            param="status_code",
        )
    return status


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body, default=str), media_type="application/json")


_ACCEPT = json_body(
    "A GA Realtime session object, flat. `type` is required; everything else has a default.",
    {
        "required": ["type"],
        "properties": {
            "type": {"type": "string", "const": "realtime"},
            "model": {"type": "string"},
            "instructions": {"type": "string"},
        },
    },
    closed=False,
    example={"type": "realtime", "model": "gpt-realtime", "instructions": "You are a receptionist."},
)
_REJECT = json_body(
    "May be left out.",
    {
        "properties": {
            "status_code": {"type": ["integer", "null"], "minimum": 300, "maximum": 699, "default": 603}
        },
    },
    required=False,
)
_DTMF = json_body("What to press.", DTMF_SCHEMA, example={"digits": "12w#"})
