"""`/v1/realtime/calls/{id}/pcap`: a call's SIP messages for Wireshark."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from offhook.calls.capture import NOT_INCLUDED, capture
from offhook.calls.errors import CallError

__all__ = ["Include", "capture_response"]

Include = Annotated[
    str, Query(description="`sip`. `rtp` and `keys` are refused: no packets of sound and no keys are kept.")
]


async def capture_response(call_id: str, timeline: dict[str, Any], include: str) -> Response:
    """Return the capture file. Raises `CallError` for what it cannot hold."""
    asked = {word.strip() for word in include.split(",") if word.strip()}
    if unknown := sorted(asked - {"sip", "rtp", "keys"}):
        raise CallError(
            400,
            f"Invalid value for 'include': '{unknown[0][:40]}' is none of 'sip', 'rtp' and 'keys'.",
            code="invalid_value",
            param="include",
        )
    if missing := sorted(asked - {"sip"}):
        raise CallError(
            409,
            f"{' and '.join(missing)} cannot be included: no packets of sound and no keys of this call were recorded.",
            code="not_recorded",
            param="include",
        )
    if not any(entry.get("kind") == "sip" for entry in timeline.get("data", ())):
        raise CallError(
            404,
            "This call has no SIP messages here: its phone leg is another service's.",
            code="no_sip_messages",
        )
    data = await asyncio.to_thread(capture, timeline)
    name = "".join(char for char in call_id if char.isalnum() or char in "_-")[:80]
    headers = {
        "content-disposition": f'attachment; filename="{name or "call"}.pcap"',
        "x-offhook-not-included": NOT_INCLUDED,
    }
    return Response(data, media_type="application/vnd.tcpdump.pcap", headers=headers)
