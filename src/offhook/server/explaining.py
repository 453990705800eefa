"""`/v1/realtime/calls/{id}/pcap`: a call's SIP messages for Wireshark, and by choice its packets and their keys."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response, StreamingResponse

from offhook.calls.capture import NOT_INCLUDED, capture, merged_capture, not_included
from offhook.calls.errors import CallError

from .services import KeptCapture, KeptCaptures

__all__ = ["CAPTURE", "Keys", "Rtp", "capture_response"]

Rtp = Annotated[
    bool,
    Query(
        description="With RTP and RTCP. They are kept where the project has `capture` `rtp` or `rtp+keys`."
    ),
]
Keys = Annotated[
    bool,
    Query(description="With `a=crypto` keys. They are kept where the project has `capture` `rtp+keys`."),
]
CAPTURE = "application/vnd.tcpdump.pcap"


async def capture_response(
    call_id: str,
    timeline: dict[str, Any],
    captures: KeptCaptures | None = None,
    *,
    rtp: bool = False,
    keys: bool = False,
) -> Response:
    """
    Return the capture file. Raises `CallError` for what it cannot hold.

    Who has the call's timeline may have its packets, too.
    """
    if not any(entry.get("kind") == "sip" for entry in timeline.get("data", ())):
        raise CallError(
            404,
            "This call has no SIP messages here: its phone leg is another service's.",
            code="no_sip_messages",
        )
    name = "".join(char for char in call_id if char.isalnum() or char in "_-")[:80]
    headers = {"content-disposition": f'attachment; filename="{name or "call"}.pcap"'}
    if not (rtp or keys):
        data = await asyncio.to_thread(capture, timeline)
        headers["x-offhook-not-included"] = NOT_INCLUDED
        return Response(data, media_type=CAPTURE, headers=headers)
    kept = await asyncio.to_thread(captures.find, call_id) if captures is not None else None
    _refuse_missing(kept, rtp=rtp, keys=keys)
    assert kept is not None
    pieces = merged_capture(timeline, kept.pieces() if rtp else None, kept.messages if keys else None)
    headers["x-offhook-not-included"] = not_included(rtp=rtp, keys=keys)
    headers["cache-control"] = "no-store"
    # Read and merged in a thread, a piece at a time: a call may have 100 MB.
    return StreamingResponse(pieces, media_type=CAPTURE, headers=headers)


def _refuse_missing(kept: KeptCapture | None, *, rtp: bool, keys: bool) -> None:
    if rtp and (kept is None or kept.packets is None):
        raise _not_recorded("rtp", "packets", 'capture = "rtp"')
    if keys and (kept is None or kept.messages is None):
        raise _not_recorded("keys", "media keys", 'capture = "rtp+keys"')


def _not_recorded(name: str, what: str, setting: str) -> CallError:
    return CallError(
        409,
        f"'{name}' cannot be included: no {what} of this call were kept, or they are deleted. Set {setting} in the "
        "project; it counts for calls that begin after that.",
        code="not_recorded",
        param=name,
    )
