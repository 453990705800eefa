"""A sideband of a call that is not ours: one WebSocket to the app, one to the service that has the call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.http11 import Response as HandshakeResponse
from websockets.typing import Subprotocol

from offhook.calls.errors import CallError
from offhook.calls.hosted import HostedCall, HostedSideband
from offhook.realtime.engines.upstream.target import call_sideband
from offhook.tenants import Project

from .auth import KEY_PROTOCOL, ORGANIZATION_PROTOCOL, PROJECT_PROTOCOL
from .context import request_id_of
from .passthrough import RELAYED, UPSTREAM_REQUEST_ID, Destination, Passthrough, upstream_error
from .sideband_limits import SidebandLimits
from .sideband_writer import SidebandWriter

__all__ = ["PassthroughSideband"]

OPEN_S = 8.0
"For an upstream's answer to a handshake. Hosted takes 5.5 s for a 404, and apps wait 10 s for an upgrade."
MAX_FRAME = 16 * 1024 * 1024
CLOSE_S = 1.0
_OURS = ("events", "api-key")
"What does not go up of a query: an extension of ours, and where some clients put their key."
_CREDENTIALS = (KEY_PROTOCOL, PROJECT_PROTOCOL, ORGANIZATION_PROTOCOL)
_UP = ("openai-safety-identifier", "x-client-request-id", "x-openai-agents-sdk")

# The library logs handshakes, keys included, at DEBUG.
_quiet = logging.getLogger("offhook.server.passthrough")
_quiet.setLevel(logging.WARNING)


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc  # A key goes to the address that the operator named, and nowhere else.


class PassthroughSideband:
    """
    Relays frames both ways as they are and in their order, and close codes with them.

    What the upstream answers instead of an upgrade is the answer to the app's handshake. Pings are each connection's
    own affair.
    """

    def __init__(self, passthrough: Passthrough, limits: SidebandLimits) -> None:
        self._passthrough = passthrough
        self._limits = limits
        self._attached: Counter[tuple[str, ...]] = Counter()

    async def attach(
        self,
        destination: Destination,
        project: Project,
        call_id: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Serve a WebSocket whose `websocket.connect` has come. Raises `CallError`, before the upgrade only."""
        async with contextlib.AsyncExitStack() as closing:
            with self._place(project.id, call_id):
                call = self._passthrough.hosted.see(project.id, call_id, destination.name)
                socket = await _unless_gone(receive, self._open_or_refuse(destination, call, scope, send))
                if socket is None:
                    return
                relay = _Relay(destination, call, socket, SidebandWriter(self._limits), self._limits.drain_s)
                # An app that attaches again at once need not wait until the upstream has closed too.
                closing.push_async_callback(relay.close)
                headers = _marks(destination, socket.response)
                with contextlib.suppress(OSError):  # the app went away just now
                    accept = {"subprotocol": socket.subprotocol, "headers": headers}
                    await send({"type": "websocket.accept", **accept})
                    await relay.run(request_id_of(scope), scope, receive, send)

    @contextlib.contextmanager
    def _place(self, *place: str) -> Iterator[None]:
        """Hold one of the places at a call. Raises `CallError` 429 when none is left."""
        if self._attached[place] >= self._limits.per_call:
            raise CallError(
                429,
                f"{self._limits.per_call} sidebands are attached to this call already.",
                code="rate_limit_exceeded",
                type="rate_limit_error",
            )
        self._attached[place] += 1
        try:
            yield
        finally:
            self._attached[place] -= 1
            if not self._attached[place]:
                del self._attached[place]

    async def _open_or_refuse(
        self, destination: Destination, call: HostedCall, scope: Scope, send: Send
    ) -> ClientConnection | None:
        """Return the upstream's connection; `None` when the app got the upstream's refusal. Raises `CallError`."""
        request_id = request_id_of(scope)
        try:
            return await self._open(destination, call, scope)
        except InvalidStatus as refusal:
            status = refusal.response.status_code
            call.timeline.record("sideband", f"refused: {status}", request_id=request_id, status=status)
            await _refuse(destination, refusal.response, send)
            return None
        except CallError as error:
            title = f"refused: {error.status}, {error.message}"
            call.timeline.record("sideband", title, request_id=request_id, status=error.status)
            raise

    async def _open(self, destination: Destination, call: HostedCall, scope: Scope) -> ClientConnection:
        """Connect, and note how it went. Raises `InvalidStatus` for an answer to pass on, `CallError` for none."""
        clock, timeout_s = self._passthrough.clock, min(OPEN_S, self._passthrough.timeout_s)
        asked_at = clock.monotonic()
        outcome = "no answer, the app did not wait for it"
        try:
            async with asyncio.timeout(timeout_s):
                socket = await self._connect(destination, scope)
            outcome = "open"
            return socket
        except InvalidStatus as refusal:
            status = refusal.response.status_code
            outcome = f"HTTP {status}"
            if 300 <= status < 400 or status < 200:
                raise upstream_error(
                    destination, "it answered with a redirect, which is not followed"
                ) from None
            raise
        except (TimeoutError, InvalidHandshake, InvalidURI, ConnectionClosed, OSError) as error:
            fault = _fault(error, timeout_s)
            outcome = f"no answer, {fault}"
            _quiet.warning(
                "upstream %s: %s",
                destination.name,
                fault,
                extra={"event": "passthrough.failed", "call_id": call.id},
            )
            late = isinstance(error, TimeoutError)
            raise upstream_error(destination, fault, timeout=late, retry=True) from None
        finally:
            took = round((clock.monotonic() - asked_at) * 1000, 1)
            title = f"sideband: {outcome}" + ("" if "no answer" in outcome else f" in {took:.0f} ms")
            call.timeline.record("relay", title, at=asked_at, upstream=destination.name, duration_ms=took)

    async def _connect(self, destination: Destination, scope: Scope) -> ClientConnection:
        headers = Headers(scope=scope)
        given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        url, key = call_sideband(
            destination.upstream, [pair for pair in given if pair[0].lower() not in _OURS]
        )
        offered = [Subprotocol(name) for name in scope["subprotocols"] if not name.startswith(_CREDENTIALS)]
        kept = {name: value for name in _UP if (value := headers.get(name)) is not None}
        return await _Connect(
            url,
            additional_headers={**kept, **key, RELAYED: "1"},
            user_agent_header=headers.get("user-agent"),
            subprotocols=offered or None,
            compression=None,
            proxy=None,
            open_timeout=None,
            max_size=MAX_FRAME,
            close_timeout=CLOSE_S,
            logger=_quiet,
            ssl=destination.tls if url.startswith("wss:") else None,
        )


class _Relay:
    """An open pair of connections."""

    def __init__(
        self,
        destination: Destination,
        call: HostedCall,
        socket: ClientConnection,
        writer: SidebandWriter,
        stall_s: float,
    ) -> None:
        self._destination = destination
        self._call = call
        self._socket = socket
        self._writer = writer
        self._stall_s = stall_s
        self._said = ""
        "How the upstream ended it; empty while it has not."
        self._close: tuple[int, str] = (1001, "")
        "What the upstream's connection is closed with, when the app ended it."

    async def run(self, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay until one side is gone; the other one then hears of it."""
        tap = self._call.attach(request_id)
        pulling = asyncio.create_task(self._pull(tap))
        pushing = asyncio.create_task(self._push(tap, receive))
        writing = asyncio.create_task(self._writer.run(send))
        tasks = (pulling, pushing, writing)
        title, code, error = "detached", None, False
        try:
            await asyncio.wait((pushing, writing), return_when=asyncio.FIRST_COMPLETED)
            if self._said or self._writer.dropped:
                title, error = self._said or self._writer.dropped, bool(self._writer.dropped)
            elif pushing.done() and not pushing.cancelled() and pushing.exception() is None:
                stalled = pushing.result()
                if stalled:
                    title, error = stalled, True
                    self._writer.close(1011, title)
                    await writing
                else:
                    code = self._close[0]
        finally:
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                tap.detach(title, code=code, error=error)
        if self._writer.dropped and (abort := scope.get("extensions", {}).get("offhook.abort")):
            abort["call"]()
        for task in tasks:
            if not task.cancelled() and (fault := task.exception()) and not isinstance(fault, OSError):
                raise fault

    async def close(self) -> None:
        """Close the upstream's connection, if it is still open, as the app closed its own."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(2 * CLOSE_S):
                await self._socket.close(*self._close)
        self._socket.transport.abort()

    async def _pull(self, tap: HostedSideband) -> None:
        """Take the upstream's frames until it closes."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                came = await self._socket.recv()
                source = self._destination
                frame = source.hide_in(came) if isinstance(came, str) else source.hide(came)
                tap.received(frame)
                self._writer.pass_on(frame)
        code, reason = _closed_with(self._socket)
        reason = self._destination.hide_in(reason)
        name = self._destination.name
        if code is None:
            self._said = f"the connection to upstream {name} broke"
            self._writer.close(1011, self._said)
            return
        self._said = f"closed by upstream {name}: {code} {reason}".rstrip()
        if code in (1000, 1001):
            self._call.closed_by_upstream()
        self._writer.close(code, reason)

    async def _push(self, tap: HostedSideband, receive: Receive) -> str:
        """Hand the app's frames up until it closes. Returns what is wrong with an upstream that does not read."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self._close = _close_of(message)
                return ""
            text = message.get("text")
            frame: str | bytes = text if text is not None else message["bytes"]
            tap.sent(frame)
            try:
                async with asyncio.timeout(self._stall_s):
                    await self._socket.send(frame)
            except TimeoutError:
                return f"dropped: upstream {self._destination.name} did not read for {self._stall_s:g} s"
            except ConnectionClosed:
                # What the upstream closed with is on its way to the app, behind its last events.
                await asyncio.Event().wait()


async def _unless_gone(
    receive: Receive, opening: Coroutine[Any, Any, ClientConnection | None]
) -> ClientConnection | None:
    """Wait for a connection; `None`, and no connection, when the app goes away meanwhile."""
    task, gone = asyncio.create_task(opening), asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _refuse(destination: Destination, response: HandshakeResponse, send: Send) -> None:
    """Answer the app's handshake with what the upstream answered."""
    headers = _marks(destination, response)
    for name in ("content-type", "retry-after", "x-should-retry"):
        if (value := response.headers.get(name)) is not None:
            headers.append((name.encode(), destination.hide_in(value).encode("latin-1", "replace")))
    body = destination.hide(bytes(response.body))
    await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def _marks(destination: Destination, response: HandshakeResponse | None) -> list[tuple[bytes, bytes]]:
    """Return the headers that say who answered."""
    marks = [(b"x-offhook-upstream", destination.name.encode())]
    if response is not None and (request_id := response.headers.get("x-request-id")) is not None:
        marks.append(
            (UPSTREAM_REQUEST_ID.encode(), destination.hide_in(request_id).encode("latin-1", "replace"))
        )
    return marks


def _closed_with(socket: ClientConnection) -> tuple[int | None, str]:
    """Return the code and reason of the upstream's close frame; `None` when there was none."""
    code, reason = socket.close_code, socket.close_reason or ""
    if code == 1005:  # a frame without a code, which the app's connection cannot be closed with
        return 1000, reason
    return (None if code in (None, 1006) else code), reason


def _close_of(message: Message) -> tuple[int, str]:
    """Return what to close with, of what the app closed with; 1000 for a frame without a code."""
    code, reason = message.get("code") or 1005, message.get("reason") or ""
    sendable = (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999
    return (code, reason) if sendable else (1000, "")


def _fault(error: Exception, timeout_s: float) -> str:
    match error:
        case TimeoutError():
            return f"no answer within {timeout_s:g} s"
        case ssl.SSLError():
            return "TLS failed"
        case InvalidURI():
            return "its url cannot be used"
        case InvalidHandshake():
            return "it does not speak WebSocket there"
        case ConnectionClosed():
            return "the connection broke off before an answer"
        case _:
            return "it cannot be connected to"
