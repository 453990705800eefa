"""Tells the developer's app: events are stored, then sent (decision 9 of the design)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from offhook import ids
from offhook.calls.errors import CallError
from offhook.calls.ports import WebhookAttempt, WebhookEvent
from offhook.clock import Clock
from offhook.metrics import Metrics
from offhook.outbound import OutboundClient, OutboundPolicy
from offhook.tenants import (
    AttemptRecord,
    DeliveryRecord,
    Endpoints,
    EventRecord,
    Outbox,
    Project,
    WebhookEndpoint,
)

from . import payload
from .breaker import Breaker
from .endpoint_driver import EndpointDriver, Listener, Sent
from .outbox import Delivery, Now, is_stale, resume, resumed_due
from .overflow import EndpointKey, Overflow
from .queue import Queued, QueueLimits
from .schedule import BACKOFF, URGENT, Attempts, DeliveryState, RetryPolicy
from .sending import Sender, endpoint_policy

__all__ = ["DeliverySettings", "WebhookAnnouncer"]

log = logging.getLogger("offhook.webhooks")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    timeout_s: float = 10.0
    "For each attempt. Handlers await accept before they answer (API rows R05, W17)."
    commit_s: float = 0.25
    "How long an event waits for its commit before it is sent from memory."
    limits: QueueLimits = field(default_factory=QueueLimits)
    urgent: RetryPolicy = URGENT
    ordinary: RetryPolicy = BACKOFF
    breaker_failures: int = 5
    "Failures in a row after which all but ringing phones' deliveries wait for one that gets through."
    breaker_pause_s: float = 2.0
    "Before the first of these; doubles up to a minute."


class WebhookAnnouncer:
    """
    The `Announcer` of this node.

    `draw` gives numbers from 0 to 1 for the spread of retries. `policy` says what an endpoint's URL may point at.
    Without an `outbox` events live in memory alone. `announce` never raises or waits: it only queues.
    """

    def __init__(
        self,
        client: OutboundClient,
        *,
        endpoints: Endpoints,
        clock: Clock,
        draw: Callable[[], float],
        outbox: Outbox | None = None,
        settings: DeliverySettings | None = None,
        policy: Callable[[WebhookEndpoint], OutboundPolicy] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._endpoints = endpoints
        self._clock = clock
        self._draw = draw
        self._outbox = outbox
        self._settings = settings or DeliverySettings()
        self._sender = Sender(
            client, clock=clock, timeout_s=self._settings.timeout_s, policy=policy or endpoint_policy()
        )
        self._drivers: dict[tuple[str, str], EndpointDriver] = {}
        self._storing: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Future[bool]] = set()
        self._live: dict[tuple[str, str], Queued[Sent]] = {}
        "By event and endpoint: what is in a driver's queue, or soon will be."
        self._overflow = (
            Overflow(outbox, clock=clock, room=self._room, take=self._take_up) if outbox is not None else None
        )
        self._stopped = False

    def is_heard(self, project: Project, event_type: str) -> bool:
        return any(event_type in endpoint.events for endpoint in self._endpoints.of(project.id))

    def announce(
        self,
        project: Project,
        event: WebhookEvent,
        *,
        urgent: bool,
        on_attempt: Callable[[WebhookAttempt], None],
        on_exhausted: Callable[[str], None],
    ) -> WebhookAnnouncement | None:
        """Queue an event for every endpoint that is subscribed to its type; see `Announcer`."""
        endpoints = [endpoint for endpoint in self._endpoints.of(project.id) if event.type in endpoint.events]
        if not endpoints:
            return None
        now = self._now()
        kept = EventRecord(
            id=event.id,
            project_id=project.id,
            call_id=event.data.get("call_id"),
            type=event.type,
            created_at=now.wall,
            body=payload.encode(event),
            urgent=urgent,
        )
        policy = self._settings.urgent if urgent else self._settings.ordinary
        announcement = WebhookAnnouncement(self, on_attempt, on_exhausted)
        announcement.deliveries = [self._new(kept, endpoint, policy, now) for endpoint in endpoints]
        queued = [
            Queued(Sent(delivery, announcement), delivery.attempts, urgent)
            for delivery in announcement.deliveries
        ]
        for item in queued:
            self._live[kept.id, item.item.delivery.endpoint_id] = item
        if self._outbox is None:
            self._send(queued)
        else:
            adding = self._outbox.add(kept, [delivery.record(now) for delivery in announcement.deliveries])
            task = asyncio.create_task(self._send_when_stored(adding, queued))
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)
        return announcement

    async def resume(self) -> None:
        """Take up what this node had not delivered when it ended. Call it once, before anything is announced."""
        if self._outbox is None or self._overflow is None:
            return
        found, now = await self._outbox.unfinished(), self._now()
        for project_id, endpoint_id, delivery_id, due_at in found:
            due = resumed_due(due_at, now, self._settings.ordinary)
            self._overflow.leave((project_id, endpoint_id), due, delivery_id)
        for key in {(project_id, endpoint_id) for project_id, endpoint_id, *_ in found}:
            self._overflow.fetch(key)
        if found:
            log.info(
                "%d deliveries of before go on", len(found),
                extra={"event": "webhook.resumed", "deliveries": len(found)},
            )  # fmt: skip

    def redeliver(self, event: EventRecord, record: DeliveryRecord) -> DeliveryRecord:
        """
        Deliver an event to the same endpoint once more, or now what waits for its next attempt.

        Raises `CallError` 409 when the endpoint is gone, or an attempt is under way.
        """
        endpoint = self._endpoints.find(record.project_id, record.endpoint_id)
        if endpoint is None:
            raise CallError(
                409,
                "The endpoint of this delivery is gone: it was deleted, or the configuration no longer has it.",
                code="webhook_endpoint_gone",
            )
        now = self._now()
        queued = self._live.get((event.id, endpoint.id))
        if queued is not None and queued.attempts.state is DeliveryState.ATTEMPTING:
            raise CallError(
                409,
                "An attempt of this delivery is under way.",
                code="webhook_delivery_under_way",
            )
        if queued is None or queued.attempts.state is not DeliveryState.WAITING:
            key = (record.project_id, record.endpoint_id)
            if self._overflow is not None and self._overflow.withdraw(key, record.id):
                delivery = resume(event, record, now, self._draw, self._settings.ordinary)
            else:
                delivery = self._new(event, endpoint, self._settings.ordinary, now)
                delivery.stored = False
            queued = Queued(Sent(delivery, _Alone(self)), delivery.attempts, urgent=False)
            self._take(queued, again=True)
        delivery = queued.item.delivery
        if delivery.attempts.state is DeliveryState.WAITING:
            self._driver(record.project_id, record.endpoint_id).hasten(queued)
        self.save(delivery)
        return delivery.record(now)

    async def test(self, endpoint: WebhookEndpoint, event: WebhookEvent) -> tuple[int | None, str | None]:
        """Send one sample, which is neither kept nor tried again. Return its HTTP status, and what was wrong."""
        outcome = await self._sender.post(endpoint, event.id, payload.encode(event))
        return outcome.status, outcome.error

    @property
    def waiting(self) -> int:
        """How many deliveries are under way or wait for another attempt."""
        return len(self._live) + (len(self._overflow) if self._overflow is not None else 0)

    async def close(self, *, grace_s: float = 0.0) -> None:
        """
        Start nothing more than what is due, wait for it up to `grace_s`, then cancel it.

        What is stored goes on with the next start.
        """
        if self._storing:
            await asyncio.wait(self._storing)
        self._stopped = True
        if self._overflow is not None:
            await self._overflow.stop()
        tasks = set(chain.from_iterable(driver.stop() for driver in self._drivers.values()))
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for storing in self._late:
            storing.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)

    def save(
        self,
        delivery: Delivery,
        attempt: AttemptRecord | None = None,
        *,
        ended: str | None = None,
    ) -> None:
        """Keep what has become of a delivery, and forget it once it is over."""
        if delivery.attempts.state not in (DeliveryState.WAITING, DeliveryState.ATTEMPTING):
            live = self._live.get(key := (delivery.event.id, delivery.endpoint_id))
            if live is not None and live.item.delivery is delivery:
                del self._live[key]
            self._fetch_more(delivery.event.project_id, delivery.endpoint_id)
        if self._outbox is not None:
            event = None if delivery.stored else delivery.event
            self._outbox.save(delivery.record(self._now(), ended=ended), attempt, event)

    async def _send_when_stored(self, committed: Awaitable[bool], queued: list[Queued[Sent]]) -> None:
        deliveries = [item.item.delivery for item in queued]
        adding = asyncio.ensure_future(committed)

        def added(task: asyncio.Future[bool]) -> None:
            self._late.discard(task)
            stored = not task.cancelled() and task.exception() is None and task.result()
            for delivery in deliveries:
                delivery.stored = stored

        self._late.add(adding)
        adding.add_done_callback(added)
        await asyncio.wait({adding}, timeout=self._settings.commit_s)
        self._send(queued)

    def _send(self, queued: list[Queued[Sent]]) -> None:
        for item in queued:
            if item.attempts.state is DeliveryState.WAITING:  # it may have expired while it was stored
                self._take(item)

    def _take(self, queued: Queued[Sent], *, again: bool = False) -> None:
        delivery = queued.item.delivery
        if self._stopped:
            queued.item.listener.refused(delivery, f"{delivery.url}: the node is stopping")
            return
        self._live[delivery.event.id, delivery.endpoint_id] = queued
        driver = self._driver(delivery.event.project_id, delivery.endpoint_id)
        if again:
            driver.resume(queued)
        elif not driver.add(queued) and not self._leave(queued):
            listener, why = queued.item.listener, "too many deliveries wait for this endpoint"
            listener.refused(delivery, f"{delivery.url}: {why}")

    def _leave(self, queued: Queued[Sent]) -> bool:
        """Too many wait for the endpoint: let this one wait in the outbox alone; False when there is none."""
        delivery = queued.item.delivery
        if self._overflow is None:
            return False
        del self._live[delivery.event.id, delivery.endpoint_id]
        if not delivery.stored:
            self.save(delivery)
        key = (delivery.event.project_id, delivery.endpoint_id)
        self._overflow.leave(key, delivery.attempts.due, delivery.id)
        return True

    def _fetch_more(self, project_id: str, endpoint_id: str) -> None:
        key = (project_id, endpoint_id)
        if self._overflow is None or key not in self._overflow:
            return
        if self._room(key) >= self._settings.limits.waiting // 4:
            self._overflow.fetch(key)

    def _room(self, key: EndpointKey) -> int:
        return self._driver(*key).room

    def _take_up(self, event: EventRecord, record: DeliveryRecord) -> None:
        """Go on with what only the outbox had."""
        delivery = resume(event, record, self._now(), self._draw, self._settings.ordinary)
        if is_stale(event, record):
            delivery.attempts.expire()
            self.save(delivery, ended="the node was started again, and the phone rings no more")
        elif not self._stopped:
            self._take(Queued(Sent(delivery, _Alone(self)), delivery.attempts, urgent=False), again=True)

    def give_up(self, delivery: Delivery, reason: str) -> bool:
        """Return whether nobody will try it: with the node's end, what is stored waits for the next start."""
        if self._stopped and self._outbox is not None and delivery.stored:
            return False
        delivery.attempts.give_up()
        self.save(delivery, ended=reason)
        return True

    def _driver(self, project_id: str, endpoint_id: str) -> EndpointDriver:
        key = (project_id, endpoint_id)
        if key not in self._drivers:
            for useless in [key for key, driver in self._drivers.items() if driver.is_useless]:
                del self._drivers[useless]
            settings = self._settings
            self._drivers[key] = EndpointDriver(
                lambda: self._endpoints.find(project_id, endpoint_id),
                self._sender,
                self._clock,
                self._metrics,
                settings.limits,
                Breaker(failures=settings.breaker_failures, pause=settings.breaker_pause_s),
                self._leave,
            )
        return self._drivers[key]

    def _new(self, event: EventRecord, endpoint: WebhookEndpoint, policy: RetryPolicy, now: Now) -> Delivery:
        return Delivery(
            id=ids.opaque_id("whd"),
            event=event,
            endpoint_id=endpoint.id,
            url=endpoint.url,
            attempts=Attempts(policy, now=now.monotonic, draw=self._draw),
            created_at=now.wall,
            stored=self._outbox is None,
        )

    def _now(self) -> Now:
        return Now(self._clock.monotonic(), self._clock.wall())


class _Alone(Listener):
    """Hears of a delivery whose call nobody follows any more."""

    def __init__(self, announcer: WebhookAnnouncer) -> None:
        self._announcer = announcer

    def attempted(self, delivery: Delivery, attempt: WebhookAttempt, record: AttemptRecord) -> None:
        self._announcer.save(delivery, record)

    def refused(self, delivery: Delivery, reason: str) -> None:
        self._announcer.give_up(delivery, reason)


class WebhookAnnouncement(Listener):
    """One event, for all endpoints that it goes to."""

    def __init__(
        self,
        announcer: WebhookAnnouncer,
        on_attempt: Callable[[WebhookAttempt], None],
        on_exhausted: Callable[[str], None],
    ) -> None:
        self.deliveries: list[Delivery] = []
        self._announcer = announcer
        self._on_attempt = on_attempt
        self._on_exhausted = on_exhausted

    def expire(self) -> None:
        """Retry no more: the call is decided. An attempt under way may finish."""
        for delivery in self.deliveries:
            waited = delivery.attempts.state is DeliveryState.WAITING
            delivery.attempts.expire()
            if waited:
                self._announcer.save(delivery, ended="the call was decided")

    def attempted(self, delivery: Delivery, attempt: WebhookAttempt, record: AttemptRecord) -> None:
        self._announcer.save(delivery, record)
        self._call(self._on_attempt, attempt)
        if delivery.attempts.state is DeliveryState.EXHAUSTED:
            self._gave_up(f"{attempt.endpoint}: {attempt.error}")

    def refused(self, delivery: Delivery, reason: str) -> None:
        if self._announcer.give_up(delivery, reason):
            self._gave_up(reason)

    def _gave_up(self, reason: str) -> None:
        """Tell the caller once no endpoint has got the event nor ever will."""
        if all(delivery.attempts.state is DeliveryState.EXHAUSTED for delivery in self.deliveries):
            self._call(self._on_exhausted, reason)

    def _call(self, callback: Callable[[_T], None], value: _T) -> None:
        try:
            callback(value)
        except Exception:
            log.exception(
                "a listener failed",
                extra={"event": "webhook.listener", "webhook_id": self.deliveries[0].event.id},
            )
