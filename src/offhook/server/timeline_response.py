"""A timeline as an answer: megabytes of JSON that nobody's packet may wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

__all__ = ["timeline_response"]

AT_ONCE = 100
"Entries. The encoder keeps the interpreter to itself, in whatever thread, for as long as one call of it takes."


async def timeline_response(
    timeline: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    content = await asyncio.to_thread(_encode, timeline)
    return Response(content, media_type="application/json", headers=headers)


def _encode(timeline: Mapping[str, Any]) -> bytes:
    head = orjson.dumps({name: value for name, value in timeline.items() if name != "data"})
    data = timeline["data"]
    pieces = [
        orjson.dumps(data[begin : begin + AT_ONCE], default=str)[1:-1]
        for begin in range(0, len(data), AT_ONCE)
    ]
    return head[:-1] + b',"data":[' + b",".join(pieces) + b"]}"
