"""A burst of calls for an app that cannot keep up: what each caller gets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from dataclasses import dataclass, field

from openai import NotFoundError
from websockets.exceptions import InvalidStatus

from .developer import DeveloperApp, Webhook
from .node import Node, Seat
from .phone import Phone, PhoneCall, Refused

__all__ = ["FALLBACK", "Burst", "Outcome"]

FALLBACK = 'fallback = { accept = { type = "realtime", model = "gpt-realtime" } }'
"A project's line: the calls that no app accepts in time are answered all the same."
HEARD_MS = 200


@dataclass
class Outcome:
    statuses: Counter[int] = field(default_factory=Counter)
    "Final statuses of the INVITEs; 0: none came."
    reached: set[str] = field(default_factory=set)
    "Calls that the app got to."
    heard: int = 0
    "Callers that heard a voice."


@dataclass(frozen=True)
class Burst:
    """
    So many INVITEs in so many seconds, for an endpoint that takes `per_s` a second, one after the other.

    With `accepts` the app takes each call that it gets to, and speaks; else it rejects it with 486.
    """

    node: Node
    seat: Seat
    calls: int
    within_s: float
    per_s: float
    ring_s: float
    accepts: bool
    phones: int = 4
    "How many sockets they come from: each has ports for 50 calls with sound."

    async def run(self) -> Outcome:
        outcome, served = Outcome(), asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            app = await stack.enter_async_context(DeveloperApp(self.node, self.seat))
            app.on_incoming = _Endpoint(app, outcome, served, 1 / self.per_s, self.accepts).take
            phones = [await stack.enter_async_context(Phone(self.node)) for _ in range(self.phones)]
            callers = []
            for phone, _ in zip(itertools.cycle(phones), range(self.calls), strict=False):
                callers.append(asyncio.create_task(self._call(phone, outcome)))
                await asyncio.sleep(self.within_s / self.calls)
            await asyncio.gather(*callers)
            served.set()  # what still waits there need not wait any longer
        return outcome

    async def _call(self, phone: Phone, outcome: Outcome) -> None:
        call = await phone.dial(self.seat.project)
        try:
            await call.answered(self.ring_s + 30)
        except Refused as refused:
            outcome.statuses[refused.status] += 1
            if call.port is not None:
                call.port.close()
            return
        outcome.statuses[200] += 1
        await self._hear(call, outcome)
        call.hang_up()

    async def _hear(self, call: PhoneCall, outcome: Outcome) -> None:
        with contextlib.suppress(AssertionError):
            await call.hears_sound(HEARD_MS, 30)
            outcome.heard += 1


class _Endpoint:
    """The app's side."""

    def __init__(
        self, app: DeveloperApp, outcome: Outcome, served: asyncio.Event, each_s: float, accepts: bool
    ) -> None:
        self._app, self._outcome, self._served = app, outcome, served
        self._each_s, self._accepts = each_s, accepts
        self._busy = asyncio.Lock()

    async def take(self, webhook: Webhook) -> None:
        async with self._busy:
            if self._served.is_set():
                return
            await asyncio.sleep(self._each_s)
        calls = self._app.client.realtime.calls
        try:
            if not self._accepts:
                await calls.reject(webhook.call_id, status_code=486)
            else:
                await self._app.accept(webhook.call_id)
                async with self._app.client.realtime.connect(call_id=webhook.call_id) as connection:
                    await connection.response.create()
                    await connection.recv_bytes()
        except NotFoundError:
            return  # the caller was gone before this app got to it
        except InvalidStatus as refused:
            if refused.response.status_code != 404:
                raise
            return  # the caller was gone just after the accept
        self._outcome.reached.add(webhook.call_id)
