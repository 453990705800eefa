"""Errors as the API shows them (API rows C04, C07, C09): one shape, whatever went wrong and wherever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError
from offhook.calls.past import PastUnavailable

from .route_template import template_of, without_prefix

__all__ = [
    "ErrorResponse",
    "documented",
    "error_body",
    "error_response",
    "install",
    "internal_error",
    "unreadable",
]


class ErrorObject(BaseModel):
    """What went wrong, for people and for programs."""

    message: str = Field(description="What is wrong and, where there is one, the remedy.")
    type: str = Field(description="`invalid_request_error`, `server_error` or `rate_limit_error`.")
    param: str | None = Field(description="The part of the request that is meant, as a dotted path.")
    code: str | None = Field(description="The fault as a word, such as `call_id_not_found`.")
    details: dict[str, Any] | None = Field(
        default=None, description="Only where more is known, such as the peer's `sip_status`."
    )


class ErrorResponse(BaseModel):
    error: ErrorObject


def error_body(error: CallError) -> bytes:
    """Return the JSON of an error. `details` is there only when there are any."""
    shown: dict[str, Any] = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    if error.details:
        shown["details"] = error.details
    return orjson.dumps({"error": shown}, default=str)


def error_response(error: CallError, headers: Mapping[str, str] | None = None) -> Response:
    """
    Return the response to an error.

    `x-should-retry` is on every one, since SDKs send a POST again by themselves after 409 and 5xx, and a second
    REFER or accept is not what the app meant (API rows C03, R19).
    """
    return Response(
        error_body(error),
        status_code=error.status,
        media_type="application/json",
        headers={"x-should-retry": "true" if error.retry else "false", **(headers or {})},
    )


def internal_error(request_id: str) -> CallError:
    """Return the error for a fault of ours; what it was is in the log under the same request id."""
    return CallError(
        500,
        f"The server had an error while processing your request (request id {request_id}).",
        type="server_error",
    )


def unreadable(error: PastUnavailable) -> CallError:
    """Return what a request is answered that needs the store."""
    return CallError(
        503,
        f"What is kept of past calls cannot be read now: {error}. Present calls are not concerned.",
        code="store_unavailable",
        type="server_error",
        retry=True,
    )


def install(app: FastAPI) -> None:
    """Give every error of the framework the API's shape."""

    async def call_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, CallError)
        return error_response(error)

    async def past_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, PastUnavailable)
        return error_response(unreadable(error))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            return _not_allowed(request, error)
        return error_response(_of_framework(request, error), error.headers)

    async def validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        param = str(first["loc"][-1])
        return error_response(
            CallError(400, f"Invalid value for '{param}': {first['msg']}.", code="invalid_value", param=param)
        )

    app.add_exception_handler(CallError, call_error)
    app.add_exception_handler(PastUnavailable, past_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, validation_error)


def _not_allowed(request: Request, error: HTTPException) -> Response:
    """Answer 405 with all methods of the path; the framework knows those of the first route that has it."""
    method, path, template = request.method, request.url.path, template_of(request.scope)
    described = (
        sorted(operations)
        for found, operations in request.app.openapi()["paths"].items()
        if without_prefix(found) == template
    )
    methods = ", ".join(next(described, ())).upper() or (error.headers or {}).get("Allow", "")
    message = f"Not allowed to {method} on {path}. Use {methods or 'another method'}."
    return error_response(CallError(405, message, code="method_not_supported"), {"Allow": methods})


def _of_framework(request: Request, error: HTTPException) -> CallError:
    method, path = request.method, request.url.path
    match error.status_code:
        case 404:
            return CallError(404, f"Unknown request URL: {method} {path}.", code="unknown_url")
        case status:
            return CallError(status, str(error.detail))


_MEANINGS = {
    400: "The request is wrong: `param` says where. Nothing happened; the call goes on as it was.",
    401: "No API key, a key that no project has, or an `OpenAI-Project` header that names another project.",
    403: "The project's configuration does not allow it.",
    404: "The call is unknown, over, or another project's: one answer for all three.",
    408: "The body did not come in time.",
    409: "The call is in a state in which this cannot be done.",
    413: "The body is over 1 MiB.",
    426: "This is a WebSocket's address. Connect with `ws:` or `wss:`.",
    429: "Too many are open already.",
    501: "Not served by this node.",
    502: "The peer refused, or cannot be reached; `details` has what it said.",
    503: "No engine is free, and the call still rings; or what is kept of past calls cannot be read now.",
    504: "The peer did not answer in time.",
}


def documented(*statuses: int, meanings: Mapping[int, str] | None = None) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route, for /openapi.json; `meanings` are those that are not about calls."""
    explained = {**_MEANINGS, **(meanings or {})}
    return {
        status: {
            "model": ErrorResponse,
            "description": explained[status],
            "headers": {
                "x-should-retry": {
                    "schema": {"type": "string", "enum": ["true", "false"]},
                    "description": "Whether a client may send the same request again by itself.",
                }
            },
        }
        for status in statuses
    }
