"""`GET /v1/realtime?call_id=...`: a WebSocket beside a call (API section 3)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import orjson
from fastapi import APIRouter, Query
from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from offhook import ids
from offhook.calls import event_frame
from offhook.calls.errors import CallError
from offhook.realtime.client_secrets import ClientSecret
from offhook.realtime.long_text import LongText
from offhook.tenants import Project

from .auth import authenticate
from .client_secrets import guest
from .context import deny, request_id_of
from .conversing import PROTOCOL, Take, converse
from .document import SECURITY
from .errors import documented
from .passthrough_sideband import PassthroughSideband
from .plain import PlainRoute
from .services import ServerServices
from .sideband_limits import SidebandPlaces
from .sideband_writer import SidebandWriter

if TYPE_CHECKING:
    from offhook.calls.call import Call
    from offhook.realtime.runner import SessionRunner

__all__ = ["SidebandRoute", "upgrade_router"]

log = logging.getLogger("offhook.server")

EXTENSIONS = frozenset({"call", "audio"})
MAX_NOTED = 1_000
"Events of one sideband that the timeline gets."
BETA_DISABLED = 4000
"The hosted service's close code for the beta's shapes (API row S12)."


@dataclass(frozen=True, slots=True)
class _Admitted:
    call: Call
    runner: SessionRunner
    events: frozenset[str]


class SidebandRoute:
    """
    The ASGI app of the sideband.

    What is wrong is said before the upgrade, as an HTTP status with a JSON body. After it, the session's events go
    out as text frames, and each frame that comes in goes to the session, which answers faults with `error` events.
    """

    def __init__(self, services: ServerServices) -> None:
        self._projects = services.projects
        self._client_secrets = services.client_secrets
        self._calls = services.calls
        self._limits = services.sideband
        self._places = SidebandPlaces(self._limits)
        self._plain = PlainRoute(services.sessions, services.sideband)
        self._passthrough = services.passthrough
        self._models = services.models
        self._hosted = (
            PassthroughSideband(services.passthrough, self._limits) if services.passthrough else None
        )

    def add_to(self, router: Router, path: str) -> None:
        router.add_websocket_route(path, self)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        with contextlib.ExitStack() as place:
            await self._serve(place, scope, receive, send)

    async def _serve(self, place: contextlib.ExitStack, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket whose `websocket.connect` has come; `place` is left when that is over."""
        try:
            headers, query = Headers(scope=scope), QueryParams(scope["query_string"])
            offered = scope["subprotocols"]
            secret: ClientSecret | None = None
            if visitor := guest(headers, offered, query, self._projects, self._client_secrets):
                project, secret = visitor
            else:
                project = authenticate(headers, self._projects, subprotocols=offered)
            beta = "realtime=v1" in headers.get("openai-beta", "")
            if not beta and await self._relays(project, scope, receive, send):
                return
            if (
                not beta
                and secret is None
                and self._models
                and await self._models.serve(project, scope, receive, send)
            ):
                return
            if not beta and await self._plain.serve(project, scope, receive, send, secret):
                return
            admitted = None if beta else await self._admit(project.id, query, place)
        except CallError as error:
            await deny(scope, receive, send, error)
            return
        chosen = PROTOCOL if PROTOCOL in scope["subprotocols"] else None
        await send({"type": "websocket.accept", "subprotocol": chosen})
        if admitted is None:
            await _refuse_beta(send)
        else:
            await self._attach(admitted, scope, receive, send)

    async def _relays(self, project: Project, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve a sideband of a call that is another service's. Returns False for all others."""
        call_id = QueryParams(scope["query_string"]).get("call_id")
        if not call_id or self._passthrough is None or self._hosted is None:
            return False
        destination = self._passthrough.destination(project, call_id, Headers(scope=scope))
        if destination is None:
            return False
        await self._hosted.attach(destination, project, call_id, scope, receive, send)
        return True

    async def _admit(self, project_id: str, query: QueryParams, place: contextlib.ExitStack) -> _Admitted:
        """Find the call's session, waiting for one that still rings (API row S11), and take a place at it."""
        call_id = query.get("call_id")
        if not call_id:
            raise _no_call_id()
        events = _parse_events(query)
        call = self._calls.find(project_id, call_id)
        place.enter_context(self._places.one_at(call_id))
        return _Admitted(call, await call.session(), events)

    async def _attach(self, admitted: _Admitted, scope: Scope, receive: Receive, send: Send) -> None:
        call, request_id = admitted.call, request_id_of(scope)
        writer = SidebandWriter(self._limits)
        call.timeline.record("sideband", "attached", request_id=request_id, events=sorted(admitted.events))
        attachment = admitted.runner.attach(writer, events=admitted.events)
        try:
            await converse(writer, _noted(call, attachment.receive), scope, receive, send)
        finally:
            attachment.detach()
            call.timeline.record("sideband", writer.dropped or "detached", request_id=request_id)


def _noted(call: Call, receive: Take) -> Take:
    """Have what an app asks of a call's session stand on the call's timeline too."""
    left = MAX_NOTED

    def hand_on(frame: str | bytes | LongText) -> Awaitable[None] | None:
        nonlocal left
        if left and (note := event_frame.note_of(frame)) is not None:
            left -= 1
            call.timeline.record("session", note[0], **note[1])
        return receive(frame)

    return hand_on


def _parse_events(query: QueryParams) -> frozenset[str]:
    """Return which extension events were asked for, `?events=call,audio` (decision 6 of the design)."""
    asked = frozenset(
        name.strip() for value in query.getlist("events") for name in value.split(",") if name.strip()
    )
    if unknown := sorted(asked - EXTENSIONS):
        raise CallError(
            400,
            f"Invalid value for 'events': '{unknown[0]}' is neither 'call' nor 'audio'.",
            code="invalid_value",
            param="events",
        )
    return asked


def _no_call_id() -> CallError:
    return CallError(
        400,
        "Missing required parameter: 'call_id' of an accepted call, or 'model' or 'intent' for a session without one.",
        code="missing_required_parameter",
        param="call_id",
    )


async def _refuse_beta(send: Send) -> None:
    """Close as the hosted service does, after an event that says why (API row S12)."""
    event = {
        "type": "error",
        "event_id": ids.opaque_id("event"),
        "error": {
            "type": "invalid_request_error",
            "code": "beta_api_shape_disabled",
            "message": "The Realtime beta API is not served. Leave out the header OpenAI-Beta: realtime=v1.",
            "param": None,
            "event_id": None,
        },
    }
    await send({"type": "websocket.send", "text": orjson.dumps(event).decode()})
    reason = "invalid_request_error.beta_api_shape_disabled"
    await send({"type": "websocket.close", "code": BETA_DISABLED, "reason": reason})


def upgrade_router() -> APIRouter:
    """Return what answers a request for the WebSocket's address that is none, relative to `/v1` and its like."""
    router = APIRouter(prefix="/realtime", tags=["sessions"], redirect_slashes=False)
    router.add_api_route(
        "",
        _open_session,
        methods=["GET"],
        status_code=426,
        response_class=Response,
        responses={
            101: {"description": "The WebSocket is open, and `session.created` is its first event."},
            **documented(400, 401, 404, 426, 429, 501, 502, 503, 504, meanings=_MEANINGS),
        },
        openapi_extra=SECURITY,
        operation_id="open_session",
    )
    return router


async def _open_session(
    call_id: Annotated[str | None, Query(description="Of an accepted call: its sideband.")] = None,
    model: Annotated[str | None, Query(description="Without a call: of a session of its own.")] = None,
    deployment: Annotated[str | None, Query(description="Azure's word for the model.")] = None,
    intent: Annotated[
        str | None, Query(description="`transcription`: a session that only writes down what it hears.")
    ] = None,
    events: Annotated[
        str | None, Query(description="What else to tell of a call: `call`, `audio` or both with a comma.")
    ] = None,
) -> Response:
    """Open a WebSocket for a call that was accepted (`call_id`), or for a session without one (`model`, `intent`)."""
    raise CallError(426, "This is a WebSocket endpoint. Connect with ws: or wss:.", code="upgrade_required")


_MEANINGS = {
    404: "The call is unknown, over, another project's, or was not accepted in time.",
    502: "The upstream of the call or the model cannot be reached.",
    503: "No engine is free.",
}
