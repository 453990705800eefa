"""Deliveries that only the outbox holds, since too many wait for their endpoint: taken up as there is room."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable

from offhook.clock import Clock
from offhook.tenants import DeliveryRecord, EventRecord, Outbox

__all__ = ["EndpointKey", "Overflow"]

log = logging.getLogger("offhook.webhooks")

EndpointKey = tuple[str, str]
"A project's id and an endpoint's."

PAGE = 500
"How many are read at a time, with their bodies: some 10 ms of the reading thread."
TURN = 10
"How many are taken up in one turn of the loop."
RETRY_S = 5.0
"Before the outbox is read again that could not be."


class Overflow:
    """
    Remembers when which is due, and nothing else. What is here is nobody else's to send.

    `room` says how many more an endpoint's queue takes now, `take` takes one up.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        clock: Clock,
        room: Callable[[EndpointKey], int],
        take: Callable[[EventRecord, DeliveryRecord], None],
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._room = room
        self._take = take
        self._left: dict[EndpointKey, list[tuple[float, str]]] = {}
        self._fetching: dict[EndpointKey, asyncio.Task[None]] = {}
        self._timers: dict[EndpointKey, asyncio.TimerHandle] = {}
        self._stopped = False

    def __len__(self) -> int:
        return sum(len(left) for left in self._left.values())

    def __contains__(self, key: EndpointKey) -> bool:
        return key in self._left

    def leave(self, key: EndpointKey, due: float, delivery_id: str) -> None:
        """Leave one in the outbox, which has it or soon will. `due` is monotonic."""
        left = self._left.setdefault(key, [])
        heapq.heappush(left, (due, delivery_id))
        if left[0][1] == delivery_id:
            self._wait(key)

    def withdraw(self, key: EndpointKey, delivery_id: str) -> bool:
        """Give one away, if it is here."""
        left = self._left.get(key, [])
        kept = [one for one in left if one[1] != delivery_id]
        found = len(kept) < len(left)
        if found:
            left[:] = kept
            heapq.heapify(left)
        return found

    def fetch(self, key: EndpointKey) -> None:
        """Take up in the background what is due, as far as there is room."""
        if key in self._left and key not in self._fetching and not self._stopped:
            task = self._fetching[key] = asyncio.create_task(self._fetch(key))
            task.add_done_callback(lambda _: self._fetching.pop(key, None))

    async def stop(self) -> None:
        """Take up nothing more: what is left is for the next start."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, key: EndpointKey) -> None:
        left = self._left[key]
        while left and (page := self._due(left, self._room(key))):
            try:
                found = await self._outbox.waiting([delivery_id for _, delivery_id in page])
            except Exception:
                log.exception("events that wait cannot be read", extra={"event": "webhook.outbox"})
                for one in page:
                    heapq.heappush(left, one)
                await asyncio.sleep(RETRY_S)
                continue
            for number, (event, record) in enumerate(found, 1):
                self._take(event, record)
                if number % TURN == 0:
                    await asyncio.sleep(0)
        if not left:
            del self._left[key]
        else:
            self._wait(key)

    def _due(self, left: list[tuple[float, str]], room: int) -> list[tuple[float, str]]:
        now = self._clock.monotonic()
        page: list[tuple[float, str]] = []
        while left and left[0][0] <= now and len(page) < min(PAGE, room):
            page.append(heapq.heappop(left))
        return page

    def _wait(self, key: EndpointKey) -> None:
        """Come back when the first is due. What is due, and finds no room, waits for who makes some to call `fetch`."""
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        delay = self._left[key][0][0] - self._clock.monotonic()
        if (delay > 0 or self._room(key) > 0) and not self._stopped:
            # A timer may fire a little early.
            delay = max(delay, 0.001)
            self._timers[key] = asyncio.get_running_loop().call_later(delay, self._come_back, key)

    def _come_back(self, key: EndpointKey) -> None:
        del self._timers[key]
        self.fetch(key)
