"""
A hosted Realtime API that has phone calls of its own: REST verbs and sidebands, made from the published rows.

It is a bare ASGI app: nothing of our server, and no framework, decides what its answers look like. What the hosted
service does oddly is done here too: a refer without `x-request-id`, a plain text 500, a key said back in a 401.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

import uvicorn

from .developer import QuietServer
from .waiting import PATIENCE_S

__all__ = ["HostedApi", "HostedCall", "HostedRequest", "HostedSideband"]

Event = dict[str, Any]
Form = Literal["openai", "azure", "azure-legacy"]

_numbers = itertools.count(1)
_PREFIX = {"openai": "/v1", "azure": "/openai/v1", "azure-legacy": "/openai"}


@dataclass(frozen=True)
class HostedRequest:
    """One request, or one attempt to open a WebSocket."""

    method: str
    target: str
    "Path and query as they stood on the wire."
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes = b""
    subprotocols: tuple[str, ...] = ()


@dataclass
class HostedCall:
    id: str
    accepted: dict[str, Any] | None = None
    rejected: int | None = None
    referred: list[str] = field(default_factory=list)
    over: bool = False
    sidebands: list[HostedSideband] = field(default_factory=list)


class HostedSideband:
    """One WebSocket that was taken. `received` is each frame that came, as it was."""

    def __init__(self, send: Callable[[Any], Any], request: HostedRequest) -> None:
        self.request = request
        self.received: list[str | bytes] = []
        self.closed: tuple[int, str] | None = None
        self.reading = asyncio.Event()
        "Clear it, and nothing more is read."
        self.reading.set()
        self._send = send
        self._changed = asyncio.Event()

    async def send(self, frame: str | bytes) -> None:
        await self._send({"type": "websocket.send", "text" if isinstance(frame, str) else "bytes": frame})

    async def say(self, event_type: str, **fields: Any) -> Event:
        event = {"type": event_type, "event_id": f"event_hosted{next(_numbers):012d}", **fields}
        await self.send(json.dumps(event))
        return event

    async def close(self, code: int, reason: str = "") -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def until(self, holds: Callable[[], Any], what: str, timeout: float = PATIENCE_S) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"hosted: no {what} within {timeout} s; came: {self.received}") from None

    async def run(self, receive: Callable[[], Any]) -> None:
        while True:
            await self.reading.wait()
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.closed = (message.get("code", 1005), message.get("reason") or "")
                self._changed.set()
                return
            text = message.get("text")
            self.received.append(text if text is not None else message["bytes"])
            self._changed.set()


class HostedApi:
    """
    Serves on loopback. Use as an async context manager; `url` is the base that its SDK would take.

    `calls` are what it knows; every other id is 404, as the captures show it (row R22). `requests` are all that came.
    `plan` says once, for the next request: a status with a body and headers, or `"hang"`.
    """

    def __init__(self, *, key: str, form: Form = "openai", bound: socket.socket | None = None) -> None:
        self.calls: dict[str, HostedCall] = {}
        self.requests: list[HostedRequest] = []
        self.plan: list[Any] = []
        self.subprotocol: str | None = "realtime"
        self._key, self._form = key, form
        self._socket = bound or socket.create_server(("127.0.0.1", 0))
        self._opened: asyncio.Queue[HostedSideband] = asyncio.Queue()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{_PREFIX[self._form]}"

    def ring(self) -> HostedCall:
        """Have a call come in at the hosted service."""
        call_id = f"rtc_u7_h{next(_numbers):021d}"
        call = self.calls[call_id] = HostedCall(call_id)
        return call

    async def opened(self, timeout: float = PATIENCE_S) -> HostedSideband:
        """Return the next sideband that was taken."""
        return await asyncio.wait_for(self._opened.get(), timeout)

    def asked(self, verb: str) -> list[HostedRequest]:
        return [one for one in self.requests if one.target.partition("?")[0].endswith(f"/{verb}")]

    async def __aenter__(self) -> HostedApi:
        config = uvicorn.Config(
            self,
            log_level="critical",
            lifespan="off",
            access_log=False,
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=1,
        )
        self._server = QuietServer(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket.dup()]))
        async with asyncio.timeout(15):
            while not self._server.started:
                await asyncio.sleep(0.005)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        await self._task
        self._socket.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        target = scope["raw_path"].decode()
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode()
        request = HostedRequest(
            scope.get("method", "GET"),
            target,
            parse_qsl(scope["query_string"].decode(), keep_blank_values=True),
            {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]},
            await _body(receive) if scope["type"] == "http" else b"",
            tuple(scope.get("subprotocols", ())),
        )
        self.requests.append(request)
        step = self.plan.pop(0) if self.plan else None
        if scope["type"] == "websocket":
            await receive()
        if step == "hang":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(receive(), 30)  # until the client goes away
            return
        if step is not None:
            status, body, headers = step
            await _answer(scope, send, status, body, headers)
        elif scope["type"] == "http":
            await _answer(scope, send, *self._judge(scope["path"], request))
        else:
            await self._websocket(scope, receive, send, request)

    # What the hosted service answers.

    def _judge(self, path: str, request: HostedRequest) -> tuple[int, bytes, dict[str, str]]:
        if fault := self._unauthorized(request):
            return fault
        head, _, verb = path.rpartition("/")
        prefix, _, call_id = head.rpartition("/calls/")
        if prefix != f"{_PREFIX[self._form]}/realtime" or not self._is_form(request):
            return _error(404, f"Invalid URL ({request.method} {path})", "unknown_url", None)
        call = self.calls.get(unquote(call_id))
        if call is None or call.over:
            return _error(404, "No session found for the provided call_id", "call_id_not_found", "")
        body = json.loads(request.body) if request.body else {}
        headers = {"x-request-id": f"req_hosted{next(_numbers)}", "openai-organization": "user-secret-org"}
        match verb:
            case "accept":
                call.accepted = body
            case "reject":
                call.rejected, call.over = body.get("status_code", 603), True
            case "refer":
                call.referred.append(body["target_uri"])
                del headers["x-request-id"]  # hosted leaves it out here, and its users complained
            case "hangup":
                call.over = True
            case _:
                return _error(404, f"Invalid URL ({request.method} {path})", "unknown_url", None)
        return 200, b"", headers

    async def _websocket(self, scope: Any, receive: Any, send: Any, request: HostedRequest) -> None:
        if fault := self._unauthorized(request):
            await _answer(scope, send, *fault)
            return
        query = dict(request.query)
        call = self.calls.get(query.get("call_id", ""))
        if "call_id" not in query and ("model" in query or "deployment" in query):
            call = HostedCall(
                "", {"model": query.get("model") or query["deployment"]}
            )  # a session of its own
        if query.get("intent") == "transcription":
            kind = {"type": "transcription", "object": "realtime.transcription_session"}
            call = HostedCall("", kind)
        at_place = request.target.partition("?")[0] == f"{_PREFIX[self._form]}/realtime"
        if call is None or call.accepted is None or call.over or not at_place or not self._is_form(request):
            fault = _error(404, "No session found for the provided call_id", "call_id_not_found", "")
            await _answer(scope, send, *fault)
            return
        chosen = self.subprotocol if self.subprotocol in request.subprotocols else None
        headers = [(b"x-request-id", b"req_hosted_ws")]
        await send({"type": "websocket.accept", "subprotocol": chosen, "headers": headers})
        sideband = HostedSideband(send, request)
        call.sidebands.append(sideband)
        session = {"type": "realtime", "object": "realtime.session", "id": "sess_hosted"} | call.accepted
        await sideband.say("session.created", session=session)
        self._opened.put_nowait(sideband)
        await sideband.run(receive)

    def _unauthorized(self, request: HostedRequest) -> tuple[int, bytes, dict[str, str]] | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._form != "openai":
            given = request.headers.get("api-key", "")
        if given == self._key:
            return None
        return _error(401, f"Incorrect API key provided: {given}.", "invalid_api_key", None)

    def _is_form(self, request: HostedRequest) -> bool:
        return (self._form == "azure-legacy") == ("api-version" in dict(request.query))


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _error(status: int, message: str, code: str, param: str | None) -> tuple[int, bytes, dict[str, str]]:
    fault = {"message": message, "type": "invalid_request_error", "code": code, "param": param}
    body = json.dumps({"error": fault}, indent=2).encode()
    return status, body, {"content-type": "application/json", "x-request-id": "req_hosted_error"}


async def _answer(scope: Any, send: Any, status: int, body: bytes, headers: dict[str, str]) -> None:
    prefix = "websocket.http" if scope["type"] == "websocket" else "http"
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    fields.append((b"content-length", str(len(body)).encode()))
    await send({"type": f"{prefix}.response.start", "status": status, "headers": fields})
    await send({"type": f"{prefix}.response.body", "body": body})
