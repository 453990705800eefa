"""Request bodies: bounded, and JSON whatever their content type says (API row C13)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from offhook.calls.errors import CallError

__all__ = ["optional_object", "parse_json", "read_body", "read_json", "refuse_unknown", "type_name"]

MAX_BODY = 1024 * 1024
MAX_DISCARDED = 16 * 1024 * 1024
"How much of a body over the limit is read and thrown away, so that the client sees the answer and not a reset."
READ_TIMEOUT = 10.0
"Seconds for a whole body."

_BOM = b"\xef\xbb\xbf"


async def read_body(request: Request) -> bytes:
    """Return the body as it came. Raises `CallError` 400, 408 or 413."""
    try:
        async with asyncio.timeout(READ_TIMEOUT):
            return await _read(request)
    except TimeoutError:
        raise CallError(408, f"The body did not come within {READ_TIMEOUT:g} s.") from None


async def read_json(request: Request) -> Any:
    """Return the body as JSON; `None` for an empty one. Raises `CallError` 400, 408 or 413."""
    return parse_json(await read_body(request))


def parse_json(body: bytes) -> Any:
    """Return a body as JSON; `None` for an empty one. Raises `CallError` 400."""
    body = body.removeprefix(_BOM).strip()
    if not body:
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CallError(400, f"We could not parse the JSON body of your request: {error}.") from None


def optional_object(body: Any) -> dict[str, Any]:
    """Return a body that may be left out but must otherwise be an object. Raises `CallError` 400."""
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise CallError(
            400,
            f"Invalid type for the body: expected an object, but got {type_name(body)} instead.",
            code="invalid_type",
        )
    return body


def refuse_unknown(body: dict[str, Any], known: Collection[str]) -> None:
    """Raise `CallError` 400 for the first name that the API does not have."""
    for name in body:
        if name not in known:
            shown = name if len(name) <= 80 else name[:77] + "..."
            raise CallError(400, f"Unknown parameter: '{shown}'.", code="unknown_parameter", param=shown)


def type_name(value: Any) -> str:
    """Return how the API names a JSON value's type."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list():
            return "an array"
    return "an object"


async def _read(request: Request) -> bytes:
    body, size = bytearray(), 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= MAX_BODY:
                body += chunk
            elif size > MAX_DISCARDED:
                break
    except ClientDisconnect:
        raise CallError(400, "The connection broke off within the body.") from None
    if size > MAX_BODY:
        raise CallError(413, f"The body is larger than {MAX_BODY} bytes.", code="request_too_large")
    return bytes(body)
