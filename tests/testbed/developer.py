"""The developer's app: takes webhooks, verified by the openai package, and asks things of calls."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import uvicorn
from openai import AsyncOpenAI

from .node import Node, Seat
from .waiting import PATIENCE_S

__all__ = ["DeveloperApp", "QuietServer", "Webhook"]


class QuietServer(uvicorn.Server):
    """uvicorn that leaves the process's signals alone and ends as soon as it is told."""

    async def main_loop(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(0.005)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(asgi: Any, seat: Seat) -> tuple[QuietServer, asyncio.Task[None]]:
    """Listen at a seat's address. End it with `should_exit` and by awaiting the task."""
    server = QuietServer(
        uvicorn.Config(
            asgi, log_level="error", lifespan="off", access_log=False, ws="none", timeout_graceful_shutdown=1
        )
    )
    task = asyncio.create_task(server.serve(sockets=[seat.socket]))
    async with asyncio.timeout(15):
        while not server.started:
            await asyncio.sleep(0.005)
    return server, task


@dataclass(frozen=True)
class Webhook:
    """One verified delivery."""

    at: float
    event: Any
    "What `client.webhooks.unwrap` made of it."
    headers: dict[str, str]
    body: bytes

    @property
    def type(self) -> str:
        return str(self.event.type)

    @property
    def call_id(self) -> str:
        return str(self.event.data.call_id)


class DeveloperApp:
    """
    An app in the test's loop. `client` is an unmodified `AsyncOpenAI` with its base URL set to the node.

    `on_incoming`, if set, is awaited before a `realtime.call.incoming` is answered; `status` answers all webhooks.
    """

    def __init__(self, node: Node, seat: Seat | None = None, *, listening: bool = True) -> None:
        self.node = node
        self.seat = seat or node.seat()
        self.status = 200
        self.on_incoming: Callable[[Webhook], Awaitable[None]] | None = None
        self.webhooks: list[Webhook] = []
        self._arrived: asyncio.Queue[Webhook] = asyncio.Queue()
        self._listening = listening
        self._server: QuietServer | None = None
        self._task: asyncio.Task[None] | None = None
        self.client = AsyncOpenAI(
            api_key=self.seat.api_key,
            webhook_secret=self.seat.secret,
            base_url=node.base_url,
            max_retries=0,
            timeout=15,
        )

    async def __aenter__(self) -> DeveloperApp:
        if self._listening:
            await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.wait_for(self._task, 15)
        await self.client.close()

    async def listen(self) -> None:
        """Open the webhook's address; until then connections to it are refused."""
        self._server, self._task = await serve(self, self.seat)

    async def incoming(self, timeout: float = PATIENCE_S) -> Webhook:
        """Return the next call that rings."""
        return await self.next("realtime.call.incoming", timeout)

    async def next(self, event_type: str, timeout: float = PATIENCE_S) -> Webhook:
        """Return the next webhook of a type; those of other types are passed over."""
        try:
            async with asyncio.timeout(timeout):
                while (webhook := await self._arrived.get()).type != event_type:
                    pass
        except TimeoutError:
            got = [webhook.type for webhook in self.webhooks]
            raise AssertionError(f"no {event_type} within {timeout} s; came: {got}") from None
        return webhook

    async def accept(self, call_id: str, **session: Any) -> None:
        """Accept with the SDK's own method."""
        await self.client.realtime.calls.accept(
            call_id, **({"type": "realtime", "model": "gpt-realtime"} | session)
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        at = time.monotonic()
        body = await _read(receive)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        event = self.client.webhooks.unwrap(body, headers)
        webhook = Webhook(at, event, headers, body)
        self.webhooks.append(webhook)
        if self.status < 300:
            self._arrived.put_nowait(webhook)
            if self.on_incoming is not None and webhook.type == "realtime.call.incoming":
                await self.on_incoming(webhook)
        await send(
            {"type": "http.response.start", "status": self.status, "headers": [(b"content-length", b"0")]}
        )
        await send({"type": "http.response.body", "body": b""})


async def _read(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body
