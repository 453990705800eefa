"""A sideband opened with the openai package, every frame of which is judged as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from openai import AsyncOpenAI, omit
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from .protocol import ProtocolFault, Strictness, check_order, validate
from .waiting import PATIENCE_S

__all__ = ["Sideband", "Socket"]

Event = dict[str, Any]


class Sideband:
    """
    `client.realtime.connect(call_id=...)`, as a context manager. Azure's clients insist on a `model` too.

    `events` is what came, as JSON; `at` the monotonic time of each. `connection` is the SDK's object, for sending.
    Leaving the context checks the rules that hold for every connection, if it was closed by the server or `whole`.
    """

    def __init__(self, client: AsyncOpenAI, call_id: str, *, model: str = "", events: str = "") -> None:
        self._model = model or omit
        self._query: dict[str, object] = {"events": events} if events else {}
        self._strictness = Strictness("call" in events.split(","), "audio" in events.split(","))
        self._client, self._call_id = client, call_id
        self.connection: AsyncRealtimeConnection
        self.events: list[Event] = []
        self.at: list[float] = []
        self.closed: tuple[int, str] | None = None
        "Code and reason, once the connection is closed."
        self._fault: BaseException | None = None
        self._changed = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Sideband:
        self.connection = await self._stack.enter_async_context(
            self._client.realtime.connect(call_id=self._call_id, model=self._model, extra_query=self._query)
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended_by_server = self.closed is not None
        await self._stack.aclose()
        await asyncio.wait_for(self._reader, 15)
        if error is None:
            if self._fault is not None:
                raise self._fault
            if ended_by_server:
                check_order(self.events)

    async def _read(self) -> None:
        try:
            while True:
                frame = await self.connection.recv_bytes()
                self.connection.parse_event(
                    frame
                )  # what an app's `recv()` does with it must not raise either
                self.events.append(validate(frame, self._strictness))
                self.at.append(time.monotonic())
                self._wake()
        except ConnectionClosed as closed:
            self.closed = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
        except ProtocolFault as fault:
            self._fault = fault
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of_type(self, *types: str) -> list[Event]:
        return [event for event in self.events if event["type"] in types]

    def when(self, event: Event) -> float:
        """Return the monotonic time at which an event of `events` came."""
        return self.at[next(index for index, one in enumerate(self.events) if one is event)]

    async def wait_for(
        self,
        event_type: str,
        where: Callable[[Event], bool] = lambda event: True,
        *,
        after: int = 0,
        timeout: float = PATIENCE_S,
    ) -> Event:
        """Return the first such event at or after index `after`, past or to come."""
        position = after
        try:
            async with asyncio.timeout(timeout):
                while True:
                    changed = self._changed
                    for position in range(position, len(self.events)):  # noqa: B020 - go on where it stopped
                        event = self.events[position]
                        if event["type"] == event_type and where(event):
                            return event
                    position = len(self.events)
                    self._raise_if_over(event_type)
                    await changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {event_type} within {timeout} s; came: {self.types[after:]}") from None

    async def wait_closed(self, timeout: float = PATIENCE_S) -> tuple[int, str]:
        """Return the close code and reason that the server gave."""
        await asyncio.wait_for(asyncio.shield(self._reader), timeout)
        if self._fault is not None:
            raise self._fault
        assert self.closed is not None
        return self.closed

    def _raise_if_over(self, event_type: str) -> None:
        if self._fault is not None:
            raise self._fault
        if self.closed is not None:
            raise AssertionError(f"closed {self.closed} before {event_type}; came: {self.types}")


class Socket:
    """A plain WebSocket on a call, for frames that no SDK at hand sends; what comes is judged all the same."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.events: list[Event] = []

    async def send(self, **event: Any) -> None:
        await self.connection.send(json.dumps(event))

    async def until(self, event_type: str) -> Event:
        """Receive up to the next event of a type."""
        async with asyncio.timeout(15):
            while True:
                self.events.append(validate(await self.connection.recv(decode=False), Strictness()))
                if self.events[-1]["type"] == event_type:
                    return self.events[-1]
