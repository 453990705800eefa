"""What is on every response: a request id, the time it took, the API's version (API row C09)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offhook import ids
from offhook.calls.errors import CallError
from offhook.clock import Clock
from offhook.metrics import Metrics

from .errors import error_response, internal_error
from .metrics import RequestCount

__all__ = ["RequestContext", "deny", "request_id_of"]

log = logging.getLogger("offhook.server")

OPENAI_VERSION = b"2020-10-01"

_STARTS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})


def request_id_of(scope: Mapping[str, Any]) -> str:
    """Return the request's `x-request-id`."""
    return str(scope["state"]["request_id"])


async def deny(scope: Scope, receive: Receive, send: Send, error: CallError) -> None:
    """Answer a WebSocket handshake with an HTTP error and its JSON body, instead of the upgrade (API row S10)."""
    response = error_response(error)
    await send(
        {
            "type": "websocket.http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )
    await send({"type": "websocket.http.response.body", "body": response.body})


class RequestContext:
    """
    ASGI middleware, outermost of ours.

    It marks every response, answers 500 when the app raises before it has answered, and answers a handshake for
    an unknown path as any other unknown URL.
    """

    def __init__(self, app: ASGIApp, clock: Clock, metrics: Metrics) -> None:
        self._app = app
        self._clock = clock
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = ids.request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        started_at = self._clock.monotonic()
        count = RequestCount(self._metrics, scope, started_at)
        started = False

        async def marked_send(message: Message) -> None:
            nonlocal started
            if message["type"] in _STARTS:
                started = True
                now = self._clock.monotonic()
                count.answered(message.get("status", 101), now)
                took = round((now - started_at) * 1000)
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"openai-processing-ms", str(took).encode()),
                    (b"openai-version", OPENAI_VERSION),
                ]
            elif message["type"] == "websocket.close" and not started:
                # The router's way to say that nothing lives at this path.
                error = CallError(404, f"Unknown request URL: GET {scope['path']}.", code="unknown_url")
                await deny(scope, receive, marked_send, error)
                return
            await send(message)

        try:
            await self._app(scope, receive, marked_send)
        except Exception:
            log.exception(
                "a request failed",
                extra={"event": "http.failed", "request_id": request_id, "path": scope["path"]},
            )
            error = internal_error(request_id)
            if started:
                await _break_off(scope, send, error)
            elif scope["type"] == "http":
                await error_response(error)(scope, receive, marked_send)
            else:
                await deny(scope, receive, marked_send, error)
        finally:
            count.ended()


async def _break_off(scope: Scope, send: Send, error: CallError) -> None:
    """End a WebSocket with 1011; an HTTP response that has begun can only be cut, which the server does."""
    if scope["type"] == "websocket":
        try:
            await send({"type": "websocket.close", "code": 1011, "reason": error.message[:100]})
        except Exception:
            log.debug("the peer had gone", exc_info=True)
