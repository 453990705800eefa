"""A language model's endpoint that does what a test tells it: streams, refuses, hangs or talks nonsense."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from offhook.realtime.engines.local.config import default_cache_dir

from .waiting import PATIENCE_S

__all__ = ["Exchange", "LanguageModel", "engine_of"]


def engine_of(bound: socket.socket, **brain: int) -> str:
    """Return the `[engine]` of a node whose agents the language model at this socket speaks for."""
    return f"""
        kind = "local"
        workers = 1
        model_dir = {json.dumps(str(default_cache_dir()))}
        [engine.brain]
        kind = "chat_completions"
        base_url = "http://127.0.0.1:{bound.getsockname()[1]}/v1"
        model = "test"
    """ + "\n".join(f"{name} = {value}" for name, value in brain.items())


class Exchange:
    """One `POST /chat/completions`, and how it is answered."""

    def __init__(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.closed: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        "When the client closed the connection, before the answer was whole."
        self._writer = writer

    def start(self, status: str = "200 OK", content_type: str = "text/event-stream", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-type: {content_type}", "connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.raw("\r\n".join((*lines, "", "")).encode())

    def raw(self, data: bytes) -> None:
        self._writer.write(data)

    def delta(self, finish_reason: str | None = None, **delta: Any) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        self.raw(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")

    def say(self, text: str) -> None:
        self.delta(content=text)

    def call_tool(self, arguments: str, name: str | None = None) -> None:
        """A piece of a call's arguments; the first piece names the tool."""
        function = {"arguments": arguments} | ({"name": name} if name else {})
        call = {"index": 0, "function": function} | ({"id": "call_1", "type": "function"} if name else {})
        self.delta(tool_calls=[call])

    def finish(self, reason: str = "stop") -> None:
        self.delta(finish_reason=reason)
        self.raw(b"data: [DONE]\n\n")


Behaviour = Callable[[Exchange], Awaitable[None]]


class LanguageModel:
    """
    Listens on a socket that is bound already. Use as an async context manager.

    Each request is answered by the next of `behaviours`; when that returns, the connection is closed.
    """

    def __init__(self, bound: socket.socket) -> None:
        self.behaviours: deque[Behaviour] = deque()
        self.requests: list[dict[str, Any]] = []
        self._socket = bound
        self._exchanges: asyncio.Queue[Exchange] = asyncio.Queue()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> LanguageModel:
        # A copy, since the server closes what it listens on and the next test needs the address again.
        self._server = await asyncio.start_server(self._serve, sock=self._socket.dup())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    async def asked(self, timeout: float = PATIENCE_S) -> Exchange:
        """Return the next request."""
        return await asyncio.wait_for(self._exchanges.get(), timeout)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            request = json.loads(await reader.readexactly(length))
            self.requests.append(request)
            exchange = Exchange(request, writer)
            self._exchanges.put_nowait(exchange)
            answering = asyncio.ensure_future(self.behaviours.popleft()(exchange))
            gone = asyncio.ensure_future(reader.read(1))
            await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                exchange.closed.set_result(time.monotonic())
                answering.cancel()
            gone.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)
        finally:
            writer.close()
