"""An open WebSocket and a session: frames both ways until one of the two ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from offhook.realtime.long_text import LongText

from .sideband_writer import SidebandWriter

__all__ = ["PROTOCOL", "Take", "converse"]

PROTOCOL = "realtime"
"The subprotocol that is chosen when it is offered (API row S08)."

Take = Callable[[str | bytes | LongText], Awaitable[None] | None]
"What takes a client's frame: a text, or binary as `bytes`. The next one is read when what it returns is done."


async def converse(writer: SidebandWriter, take: Take, scope: Scope, receive: Receive, send: Send) -> None:
    """Return when the client is gone, or `writer` was closed or gave its reader up. Raises what `take` raises."""
    reading = asyncio.create_task(_read(receive, take))
    writing = asyncio.create_task(writer.run(send))
    try:
        await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (reading, writing):
            task.cancel()
        await asyncio.gather(reading, writing, return_exceptions=True)
    if writer.dropped:
        _abort(scope)
    for task in (reading, writing):
        if not task.cancelled() and (error := task.exception()) is not None and not _is_gone(error):
            raise error


async def _read(receive: Receive, take: Take) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        if (waiting := take(text if text is not None else message["bytes"])) is not None:
            await waiting


def _is_gone(error: BaseException) -> bool:
    """Whether an error only says that the peer went away."""
    return isinstance(error, OSError)


def _abort(scope: Scope) -> None:
    """Cut the connection of a reader who will not read a close frame either."""
    abort = scope.get("extensions", {}).get("offhook.abort")
    if abort is not None:
        abort["call"]()
