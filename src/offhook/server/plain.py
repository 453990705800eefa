"""
A WebSocket that has a session of its own, without a call (API row S03).

`GET /v1/realtime?model=...` talks; `GET /v1/realtime?intent=transcription` only writes down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from offhook.calls.errors import CallError
from offhook.realtime.client_secrets import ClientSecret
from offhook.realtime.engine import EngineUnavailable, PhoneCallsOnly
from offhook.realtime.plain_sessions import PlainSession, SessionRefused
from offhook.realtime.session_config import DEFAULT_MODEL
from offhook.tenants import Project

from .conversing import PROTOCOL, converse
from .sideband_limits import SidebandLimits
from .sideband_writer import SidebandWriter

__all__ = ["PlainRoute", "Sessions", "engine_unavailable", "model_asked_for"]

AZURE_BEFORE_V1 = "/openai/realtime"
"Azure's path whose own word for the model is `deployment` (API row A02)."
TRANSCRIPTION = "transcription"
"The one intent that there is."


class Sessions(Protocol):
    """What the server needs of `PlainSessions`."""

    def open(
        self, project_id: str, model: str, *, project_limit: int = 0, given: Mapping[str, Any] | None = None
    ) -> PlainSession: ...


class PlainRoute:
    """Serves the WebSockets that name a model, or a deployment as Azure has it, instead of a call."""

    def __init__(self, sessions: Sessions | None, limits: SidebandLimits) -> None:
        self._sessions = sessions
        self._limits = limits

    async def serve(
        self,
        project: Project,
        scope: Scope,
        receive: Receive,
        send: Send,
        secret: ClientSecret | None = None,
    ) -> bool:
        """
        Serve a WebSocket whose `websocket.connect` has come; returns False, and does nothing, for one about a call.

        With a client secret the session begins with its configuration, and has its model where it names one.

        Raises `CallError`, before the upgrade only.
        """
        query = QueryParams(scope["query_string"])
        model = model_asked_for(scope)
        if secret is not None and (secret.names_model or not model):
            model = secret.config.model
        if query.get("call_id") or not (model or "intent" in query):
            return False
        session = self._open(project, model or DEFAULT_MODEL, _given(query, secret))
        writer = SidebandWriter(self._limits)
        try:
            chosen = PROTOCOL if PROTOCOL in scope["subprotocols"] else None
            await send({"type": "websocket.accept", "subprotocol": chosen})
            attachment = await session.attach(writer)
            try:
                await converse(writer, lambda frame: session.receive(frame, attachment), scope, receive, send)
            finally:
                attachment.detach()
        finally:
            await session.close(writer.dropped or "the client went away")
        return True

    def _open(self, project: Project, model: str, given: Mapping[str, Any] | None) -> PlainSession:
        if self._sessions is None:
            raise _not_supported("This node serves sessions of phone calls only (?call_id=).", "model")
        try:
            return self._sessions.open(project.id, model, project_limit=project.max_calls, given=given)
        except PhoneCallsOnly as error:
            raise _not_supported(
                f"The model '{model}' has no sessions without a call: {error}.", "model"
            ) from None
        except EngineUnavailable as error:
            raise engine_unavailable(f"No engine is free for this session: {error}.") from None
        except SessionRefused as refused:
            if refused.reason == "draining":
                raise engine_unavailable(str(refused)) from None
            raise CallError(
                429, str(refused), code="rate_limit_exceeded", type="rate_limit_error", retry=True
            ) from None


def model_asked_for(scope: Scope) -> str:
    """
    Return the model of a WebSocket's query, empty if it names none (API row A04).

    Of `model` and `deployment` the one that the path is for counts; the other where that one is missing.
    """
    query = QueryParams(scope["query_string"])
    names = ("deployment", "model") if scope["path"] == AZURE_BEFORE_V1 else ("model", "deployment")
    return next((model for name in names if (model := query.get(name))), "")


def _given(query: QueryParams, secret: ClientSecret | None) -> Mapping[str, Any] | None:
    """Return the session object to begin with. Raises `CallError` 400 for an intent that cannot be had."""
    intent = query.get("intent")
    if intent not in (None, TRANSCRIPTION):
        message = f"Invalid value: '{intent[:80]}'. Supported values are: '{TRANSCRIPTION}'."
        raise CallError(400, message, code="invalid_value", param="intent")
    if secret is None:
        return {"type": TRANSCRIPTION} if intent else None
    if intent and secret.given["type"] != TRANSCRIPTION:
        message = (
            "This client secret opens realtime sessions. Leave out 'intent', or make one with 'session.type': "
            f"'{TRANSCRIPTION}'."
        )
        raise CallError(400, message, code="invalid_value", param="intent")
    return secret.given


def engine_unavailable(message: str) -> CallError:
    """Return the error for a session that cannot be had now, and may be had elsewhere or later."""
    return CallError(503, message, code="engine_unavailable", type="server_error", retry=True)


def _not_supported(message: str, param: str) -> CallError:
    return CallError(501, message, code="not_supported", param=param, type="server_error")
