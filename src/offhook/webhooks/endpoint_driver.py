"""Runs one endpoint's queue: a task for each attempt, one timer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from offhook.calls.ports import WebhookAttempt
from offhook.clock import Clock
from offhook.metrics import Metrics
from offhook.tenants import AttemptRecord, WebhookEndpoint

from .breaker import Breaker
from .outbox import GONE, Delivery
from .queue import EndpointQueue, Queued, QueueLimits
from .sending import Sender

__all__ = ["EndpointDriver", "Listener", "Sent"]

log = logging.getLogger("offhook.webhooks")

OVERDUE_AT_ONCE = 20
OVERDUE_PAUSE_S = 0.005
"After a day of an endpoint's trouble there may be thousands: they must not stop the loop."


@dataclass(frozen=True, slots=True)
class Sent:
    """A delivery, and who hears of it."""

    delivery: Delivery
    listener: Listener


class Listener:
    """Hears of deliveries; does nothing by itself."""

    def attempted(self, delivery: Delivery, attempt: WebhookAttempt, record: AttemptRecord) -> None:
        """An attempt has ended; `delivery.attempts` says what comes next."""

    def refused(self, delivery: Delivery, reason: str) -> None:
        """Nothing will be tried: too many wait, its time is over, or the node is stopping."""


class EndpointDriver:
    """
    One endpoint's queue at work.

    `find` gives the endpoint as it is now, or `None` when it is gone. `leave` has one wait elsewhere that can.
    """

    def __init__(
        self,
        find: Callable[[], WebhookEndpoint | None],
        sender: Sender,
        clock: Clock,
        metrics: Metrics,
        limits: QueueLimits,
        breaker: Breaker,
        leave: Callable[[Queued[Sent]], bool],
    ) -> None:
        self._find = find
        self._sender = sender
        self._clock = clock
        self._metrics = metrics
        self._leave = leave
        self._queue: EndpointQueue[Sent] = EndpointQueue(limits, breaker)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    @property
    def room(self) -> int:
        """How many more deliveries may wait here."""
        return self._queue.room

    @property
    def is_useless(self) -> bool:
        """Whether its endpoint is gone, and nothing waits for it."""
        return not len(self._queue) and self._find() is None

    def add(self, queued: Queued[Sent]) -> bool:
        """Take a new delivery; False when too many wait."""
        taken = self._queue.add(queued)
        self._pump()
        return taken

    def resume(self, queued: Queued[Sent]) -> None:
        """Take a delivery that waited in the outbox."""
        self._queue.resume(queued)
        self._pump()

    def hasten(self, queued: Queued[Sent]) -> None:
        """Try one that waits here now."""
        self._queue.hasten(queued, self._clock.monotonic())
        self._pump()

    def stop(self) -> set[asyncio.Task[None]]:
        """Start what is due and nothing more; return the attempts under way."""
        self._pump()
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        return set(self._tasks)

    def _pump(self) -> None:
        if self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock.monotonic()
        for queued in self._queue.take(now):
            task = asyncio.create_task(self._attempt(queued))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        overdue = self._queue.overdue(now, OVERDUE_AT_ONCE)
        for queued in overdue:
            delivery = queued.item.delivery
            queued.item.listener.refused(
                delivery, f"{delivery.url}: its time was over before an attempt got through"
            )
        due = now + OVERDUE_PAUSE_S if len(overdue) == OVERDUE_AT_ONCE else self._queue.next_timer()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self._pump)

    async def _attempt(self, queued: Queued[Sent]) -> None:
        delivery, attempts = queued.item.delivery, queued.attempts
        number, started_at, wall = attempts.number, self._clock.monotonic(), self._clock.wall()
        unstored = not delivery.stored
        endpoint = self._find()
        if endpoint is None:
            outcome = GONE
        else:
            delivery.url = endpoint.url
            outcome = await self._sender.post(endpoint, delivery.event.id, delivery.event.body)
        now = self._clock.monotonic()
        will_retry = self._queue.finish(
            queued, delivered=outcome.error is None, permanent=outcome.permanent, now=now
        )
        delivery.last = outcome
        duration_ms = (now - started_at) * 1000
        attempt = WebhookAttempt(
            endpoint=delivery.url,
            number=number,
            started_at=started_at,
            duration_ms=duration_ms,
            status=outcome.status,
            error=outcome.error,
            will_retry=will_retry,
            unstored=unstored,
            kind=outcome.kind,
        )
        _log_attempt(delivery, attempt)
        self._count(delivery.event.type, attempt)
        record = AttemptRecord(number, wall, duration_ms, outcome.status, outcome.error)
        queued.item.listener.attempted(delivery, attempt, record)
        if will_retry and not (self._queue.is_crowded(queued) and self._leave(queued)):
            self._queue.resume(queued)
        self._pump()

    def _count(self, event_type: str, attempt: WebhookAttempt) -> None:
        outcome = "no_answer" if attempt.status is None else f"{attempt.status // 100}xx"
        self._metrics.count("offhook_webhook_attempts", event_type, outcome)
        self._metrics.observe("offhook_webhook_attempt_seconds", attempt.duration_ms / 1000, outcome)


def _log_attempt(delivery: Delivery, attempt: WebhookAttempt) -> None:
    level = logging.INFO if attempt.error is None else logging.WARNING
    log.log(
        level,
        "%s to %s: %s",
        delivery.event.type,
        attempt.endpoint,
        attempt.error or attempt.status,
        extra={
            "event": "webhook.attempted",
            "webhook_id": delivery.event.id,
            "attempt": attempt.number,
            "status": attempt.status,
            "duration_ms": round(attempt.duration_ms, 1),
            "will_retry": attempt.will_retry,
            **({"unstored": True} if attempt.unstored else {}),
        },
    )
