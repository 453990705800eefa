"""One WebSocket to the app and one to an upstream, joined: frames as they are, in their order, and close codes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.http11 import Response as HandshakeResponse
from websockets.typing import Subprotocol

from offhook.calls.errors import CallError
from offhook.calls.hosted import HostedCall, HostedSideband
from offhook.clock import Clock

from .auth import KEY_PROTOCOL, ORGANIZATION_PROTOCOL, PROJECT_PROTOCOL
from .context import request_id_of
from .passthrough import RELAYED, UPSTREAM_REQUEST_ID, Destination, upstream_error
from .sideband_limits import SidebandLimits
from .sideband_writer import SidebandWriter

__all__ = ["OPEN_S", "Attempt", "SocketRelay"]

OPEN_S = 8.0
"For an upstream's answer to a handshake. Hosted takes 5.5 s for a 404, and apps wait 10 s for an upgrade."
MAX_FRAME = 16 * 1024 * 1024
CLOSE_S = 1.0
_CREDENTIALS = (KEY_PROTOCOL, PROJECT_PROTOCOL, ORGANIZATION_PROTOCOL)
_UP = ("openai-safety-identifier", "x-client-request-id", "x-openai-agents-sdk")

# The library logs handshakes, keys included, at DEBUG.
_quiet = logging.getLogger("offhook.server.passthrough")
_quiet.setLevel(logging.WARNING)


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc  # A key goes to the address that the operator named, and nowhere else.


@dataclass(frozen=True, slots=True)
class Attempt:
    """A handshake to try."""

    destination: Destination
    url: str
    key: Mapping[str, str]
    "The headers that carry it."
    timeout_s: float
    why: str
    "What the upstream has to do with the request, for the error: `that may have this call`."


_Opened = tuple[Destination, ClientConnection]


class SocketRelay:
    """
    Serves the app's WebSocket with an upstream's.

    What the upstream answers instead of an upgrade is the answer to the app's handshake. Pings are each connection's
    own affair.
    """

    def __init__(self, clock: Clock, limits: SidebandLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._relays: set[_Relay] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def close(self, *, grace_s: float) -> None:
        """Wait for the open ones up to `grace_s`, then end them with 1001 on both sides."""
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            for relay in self._relays:
                relay.end(1001, "the node was shut down")
            # Who does not read now is cut off with the server.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._idle.wait()

    async def serve(
        self,
        record: HostedCall,
        attempts: Sequence[Attempt],
        place: AbstractContextManager[None],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """
        Serve a WebSocket whose `websocket.connect` has come, with the first upstream that takes it.

        `place` is held meanwhile. Raises `CallError`, before the upgrade only.
        """
        async with contextlib.AsyncExitStack() as closing:
            with place:
                opened = await _unless_gone(receive, self._open_first(record, attempts, scope, send))
                if opened is None:
                    return
                destination, socket = opened
                relay = _Relay(
                    destination, record, socket, SidebandWriter(self._limits), self._limits.drain_s
                )
                # An app that attaches again at once need not wait until the upstream has closed too.
                closing.push_async_callback(relay.close)
                headers = _marks(destination, socket.response)
                with contextlib.suppress(OSError):  # the app went away just now
                    accept = {"subprotocol": socket.subprotocol, "headers": headers}
                    await send({"type": "websocket.accept", **accept})
                    with self._noted(relay):
                        await relay.run(request_id_of(scope), scope, receive, send)

    @contextlib.contextmanager
    def _noted(self, relay: _Relay) -> Iterator[None]:
        self._relays.add(relay)
        self._idle.clear()
        try:
            yield
        finally:
            self._relays.discard(relay)
            if not self._relays:
                self._idle.set()

    async def _open_first(
        self, record: HostedCall, attempts: Sequence[Attempt], scope: Scope, send: Send
    ) -> _Opened | None:
        """Return a connection; `None` when the app got the last upstream's refusal. Raises `CallError`."""
        request_id = request_id_of(scope)
        for left, attempt in zip(range(len(attempts) - 1, -1, -1), attempts, strict=True):
            try:
                return attempt.destination, await self._open(attempt, record, scope)
            except InvalidStatus as refusal:
                if left:
                    continue
                status = refusal.response.status_code
                record.timeline.record(
                    "sideband",
                    f"refused: {status}",
                    request_id=request_id,
                    status=status,
                    direction="out",
                )
                await _refuse(attempt.destination, refusal.response, send)
            except CallError as error:
                if left:
                    continue
                title = f"refused: {error.status}, {error.message}"
                record.timeline.record(
                    "sideband", title, request_id=request_id, status=error.status, direction="out"
                )
                raise
        return None

    async def _open(self, attempt: Attempt, record: HostedCall, scope: Scope) -> ClientConnection:
        """Connect, and note how it went. Raises `InvalidStatus` for an answer to pass on, `CallError` for none."""
        name = attempt.destination.name
        asked_at = self._clock.monotonic()
        outcome = "no answer, the app did not wait for it"
        try:
            async with asyncio.timeout(attempt.timeout_s):
                socket = await _connect(attempt, scope)
            outcome = "open"
            return socket
        except InvalidStatus as refusal:
            status = refusal.response.status_code
            outcome = f"HTTP {status}"
            if 300 <= status < 400 or status < 200:
                fault = "it answered with a redirect, which is not followed"
                raise upstream_error(attempt.destination, fault, why=attempt.why) from None
            raise
        except (TimeoutError, InvalidHandshake, InvalidURI, ConnectionClosed, OSError) as error:
            fault = _fault(error, attempt.timeout_s)
            outcome = f"no answer, {fault}"
            extra = {"event": "passthrough.failed", "call_id": record.id}
            _quiet.warning("upstream %s: %s", name, fault, extra=extra)
            late = isinstance(error, TimeoutError)
            raise upstream_error(
                attempt.destination, fault, why=attempt.why, timeout=late, retry=True
            ) from None
        finally:
            took = round((self._clock.monotonic() - asked_at) * 1000, 1)
            title = f"sideband: {outcome}" + ("" if "no answer" in outcome else f" in {took:.0f} ms")
            record.timeline.record("relay", title, at=asked_at, upstream=name, duration_ms=took)


async def _connect(attempt: Attempt, scope: Scope) -> ClientConnection:
    headers = Headers(scope=scope)
    offered = [Subprotocol(name) for name in scope["subprotocols"] if not name.startswith(_CREDENTIALS)]
    kept = {name: value for name in _UP if (value := headers.get(name)) is not None}
    return await _Connect(
        attempt.url,
        additional_headers={**kept, **attempt.key, RELAYED: "1"},
        user_agent_header=headers.get("user-agent"),
        subprotocols=offered or None,
        compression=None,
        proxy=None,
        open_timeout=None,
        max_size=MAX_FRAME,
        close_timeout=CLOSE_S,
        logger=_quiet,
        ssl=attempt.destination.tls if attempt.url.startswith("wss:") else None,
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
        "How the upstream or this node ended it; empty while neither has."
        self._failed = False
        self._close: tuple[int, str] = (1001, "")
        "What the upstream's connection is closed with, when it did not close it."

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
                title, error = self._said or self._writer.dropped, self._failed or bool(self._writer.dropped)
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
                tap.detach(title, code=code, by_app=title == "detached", error=error)
        if self._writer.dropped and (abort := scope.get("extensions", {}).get("offhook.abort")):
            abort["call"]()
        for task in tasks:
            if not task.cancelled() and (fault := task.exception()) and not isinstance(fault, OSError):
                raise fault

    def end(self, code: int, reason: str) -> None:
        """Close both sides, the app's behind what it was told already."""
        self._said, self._close = f"ended here: {reason}", (code, reason)
        self._writer.close(code, reason)

    async def close(self) -> None:
        """Close the upstream's connection, if it is still open, as the app's was closed."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(2 * CLOSE_S):
                await self._socket.close(*self._close)
        self._socket.transport.abort()

    async def _pull(self, tap: HostedSideband) -> None:
        """Take the upstream's frames until it closes."""
        try:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    came = await self._socket.recv()
                    source = self._destination
                    frame = source.hide_in(came) if isinstance(came, str) else source.hide(came)
                    tap.received(frame)
                    self._writer.pass_on(frame)
        except Exception:
            # Nothing would come to the app any more, and it would not know.
            self._said, self._failed = "a fault of this node's ended it", True
            self._writer.close(1011, self._said)
            raise
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
            frame: str | bytes = str(text) if text is not None else message["bytes"]
            tap.sent(frame)
            try:
                async with asyncio.timeout(self._stall_s):
                    await self._socket.send(frame)
            except TimeoutError:
                return f"dropped: upstream {self._destination.name} did not read for {self._stall_s:g} s"
            except ConnectionClosed:
                # What the upstream closed with is on its way to the app, behind its last events.
                await asyncio.Event().wait()


async def _unless_gone(receive: Receive, opening: Coroutine[Any, Any, _Opened | None]) -> _Opened | None:
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
