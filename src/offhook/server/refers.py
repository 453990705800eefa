"""What is asked of `/refer`, and how its parts of a call are shown."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError
from offhook.calls.target import MAX_TARGET_URI, check_target_uri
from offhook.tenants import Project

from .body import optional_object, parse_json, refuse_unknown, type_name
from .context import request_id_of
from .document import json_body

__all__ = ["REFER_BODY", "ReferAudit", "find_refer", "refer_target", "refer_under_way", "screen_refer"]

log = logging.getLogger("offhook.server")

REFER_BODY = json_body(
    "Where to.",
    {
        "required": ["target_uri"],
        "properties": {
            "target_uri": {
                "type": "string",
                "description": "A `tel:`, `sip:` or `sips:` URI; behind `?` it may have `Replaces`.",
                "minLength": 1,
                "maxLength": MAX_TARGET_URI,
            }
        },
    },
    example={"target_uri": "tel:+15551234567"},
)


def refer_target(body: dict[str, Any]) -> str:
    """Return `target_uri`, not judged yet. Raises `CallError` 400."""
    refuse_unknown(body, ("target_uri",))
    if "target_uri" not in body:
        raise CallError(
            400,
            "Missing required parameter: 'target_uri'.",
            code="missing_required_parameter",
            param="target_uri",
        )
    target = body["target_uri"]
    if not isinstance(target, str):
        raise CallError(
            400,
            f"Invalid type for 'target_uri': expected a string, but got {type_name(target)} instead.",
            code="invalid_type",
            param="target_uri",
        )
    return target


def refer_under_way(request: Request, refers: list[dict[str, Any]]) -> Response:
    """Return the answer to a refer that waits for the agent and goes on without its asker."""
    where = request.url.path.removesuffix("/refer")
    return Response(status_code=202, headers={"location": f"{where}/refers/{len(refers)}"})


def find_refer(refers: list[dict[str, Any]], number: int) -> dict[str, Any]:
    """Return one of a call's transfers. Raises `CallError` 404."""
    if not 1 <= number <= len(refers):
        raise CallError(
            404, f"This call has no transfer {number}; it has had {len(refers)}.", code="refer_not_found"
        )
    return refers[number - 1]


class ReferAudit:
    """
    The log line about who wanted to send a caller where: it is what a stolen key is used for first.

    Written when its block is left. `key_id` is no key.
    """

    def __init__(self, request: Request, project: Project, key_id: str, call_id: str) -> None:
        self.target: object = None
        self._request_id = request_id_of(request.scope)
        self._project_id = project.id
        self._key_id = key_id
        self._call_id = call_id

    def __enter__(self) -> ReferAudit:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        refusal = error if isinstance(error, CallError) else None
        is_denied = refusal is not None and refusal.status in (400, 403)
        log.log(
            logging.WARNING if is_denied else logging.INFO,
            "refer denied" if is_denied else "refer allowed",
            extra={
                "event": "audit.refer.denied" if is_denied else "audit.refer",
                "call_id": self._call_id,
                "project_id": self._project_id,
                "key_id": self._key_id,
                "target_uri": self.target[:MAX_TARGET_URI] if isinstance(self.target, str) else None,
                "code": refusal.code if refusal is not None else None,
                "request_id": self._request_id,
            },
        )


def screen_refer(body: bytes, project: Project, audit: ReferAudit) -> bytes:
    """
    Return the body that goes up for a hosted call, and tell the audit where to.

    What a target may look like is the upstream's affair; where it may be is the project's, if it has a list of
    targets. Then this raises `CallError` as a refer of an own call does.
    """
    if not project.refer_targets:
        with contextlib.suppress(CallError):
            audit.target = refer_target(optional_object(parse_json(body)))
        return body
    audit.target = target = refer_target(optional_object(parse_json(body)))
    # Written anew: what was judged is what goes up, however else the body could be read.
    return orjson.dumps({"target_uri": check_target_uri(target, project.refer_targets)})
