"""Sends webhooks: the driver of `EndpointQueue`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from offhook.calls.ports import WebhookAttempt, WebhookEvent
from offhook.clock import Clock
from offhook.metrics import Metrics
from offhook.outbound import OPERATOR, OutboundClient, OutboundError, OutboundPolicy, OutboundResponse
from offhook.tenants import Project, WebhookEndpoint

from . import payload, signature
from .breaker import Breaker
from .queue import EndpointQueue, Queued, QueueLimits
from .schedule import BACKOFF, URGENT, Attempts, DeliveryState, RetryPolicy

__all__ = ["DeliverySettings", "WebhookAnnouncer"]

log = logging.getLogger("offhook.webhooks")

_T = TypeVar("_T")

USER_AGENT = "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)"
"What receivers of the hosted service's webhooks have always seen (API row W06)."


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    timeout_s: float = 10.0
    "For each attempt. Handlers await accept before they answer (API rows R05, W17)."
    limits: QueueLimits = field(default_factory=QueueLimits)
    urgent: RetryPolicy = URGENT
    ordinary: RetryPolicy = BACKOFF
    breaker_failures: int = 5
    "Failures in a row after which all but ringing phones' deliveries wait for one that gets through."
    breaker_pause_s: float = 2.0
    "Before the first of these; doubles up to a minute."


def operator_policy(endpoint: WebhookEndpoint) -> OutboundPolicy:
    """Every endpoint stands in the configuration file, so each may be on the operator's own network."""
    return OPERATOR


class WebhookAnnouncer:
    """
    The `Announcer` of this node.

    `draw` gives numbers from 0 to 1 for the spread of retries. `policy` says what an endpoint's URL may point at.
    Nothing here raises or waits in the caller's face: `announce` only queues.
    """

    def __init__(
        self,
        client: OutboundClient,
        *,
        clock: Clock,
        draw: Callable[[], float],
        settings: DeliverySettings | None = None,
        policy: Callable[[WebhookEndpoint], OutboundPolicy] = operator_policy,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._client = client
        self._clock = clock
        self._draw = draw
        self._settings = settings or DeliverySettings()
        self._policy = policy
        self._endpoints: dict[tuple[str, str], _EndpointDriver] = {}

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
        endpoints = [endpoint for endpoint in project.webhooks if event.type in endpoint.events]
        if not endpoints:
            return None
        announcement = WebhookAnnouncement(event, payload.encode(event), on_attempt, on_exhausted)
        policy = self._settings.urgent if urgent else self._settings.ordinary
        now = self._clock.monotonic()
        announcement.deliveries = [Attempts(policy, now=now, draw=self._draw) for _ in endpoints]
        for endpoint, attempts in zip(endpoints, announcement.deliveries, strict=True):
            self._driver(endpoint).add(Queued(_Delivery(announcement, endpoint), attempts, urgent))
        return announcement

    @property
    def waiting(self) -> int:
        """How many deliveries are under way or wait for another attempt."""
        return sum(driver.waiting for driver in self._endpoints.values())

    async def close(self, *, grace_s: float = 0.0) -> None:
        """Start nothing more than what is due, wait for it up to `grace_s`, then cancel it."""
        tasks = set(chain.from_iterable(driver.stop() for driver in self._endpoints.values()))
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _driver(self, endpoint: WebhookEndpoint) -> _EndpointDriver:
        key = (endpoint.id, endpoint.url)
        if key not in self._endpoints:
            self._endpoints[key] = _EndpointDriver(
                self._client, self._clock, self._settings, self._policy(endpoint), self._metrics
            )
        return self._endpoints[key]


class WebhookAnnouncement:
    """One event, for all endpoints that it goes to."""

    def __init__(
        self,
        event: WebhookEvent,
        body: bytes,
        on_attempt: Callable[[WebhookAttempt], None],
        on_exhausted: Callable[[str], None],
    ) -> None:
        self.event = event
        self.body = body
        self.deliveries: list[Attempts] = []
        self._on_attempt = on_attempt
        self._on_exhausted = on_exhausted

    def expire(self) -> None:
        """Retry no more: the call is decided. An attempt under way may finish."""
        for attempts in self.deliveries:
            attempts.expire()

    def attempted(self, attempt: WebhookAttempt) -> None:
        self._call(self._on_attempt, attempt)

    def gave_up(self, reason: str) -> None:
        """Tell the caller once no endpoint has got the event nor ever will."""
        if all(attempts.state is DeliveryState.EXHAUSTED for attempts in self.deliveries):
            self._call(self._on_exhausted, reason)

    def _call(self, callback: Callable[[_T], None], value: _T) -> None:
        try:
            callback(value)
        except Exception:
            log.exception(
                "a listener failed", extra={"event": "webhook.listener", "webhook_id": self.event.id}
            )


@dataclass(frozen=True, slots=True)
class _Delivery:
    announcement: WebhookAnnouncement
    endpoint: WebhookEndpoint


@dataclass(frozen=True, slots=True)
class _Outcome:
    status: int | None
    error: str | None
    permanent: bool = False


class _EndpointDriver:
    """Runs one endpoint's queue: a task for each attempt, one timer."""

    def __init__(
        self,
        client: OutboundClient,
        clock: Clock,
        settings: DeliverySettings,
        policy: OutboundPolicy,
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._clock = clock
        self._timeout_s = settings.timeout_s
        self._policy = policy
        breaker = Breaker(failures=settings.breaker_failures, pause=settings.breaker_pause_s)
        self._queue: EndpointQueue[_Delivery] = EndpointQueue(settings.limits, breaker)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    def add(self, queued: Queued[_Delivery]) -> None:
        if self._stopped or not self._queue.add(queued):
            queued.attempts.give_up()
            why = "the node is stopping" if self._stopped else "too many deliveries wait for this endpoint"
            queued.item.announcement.gave_up(f"{queued.item.endpoint.url}: {why}")
        self._pump()

    @property
    def waiting(self) -> int:
        return len(self._queue)

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
        if (due := self._queue.next_timer()) is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self._pump)

    async def _attempt(self, queued: Queued[_Delivery]) -> None:
        delivery, attempts = queued.item, queued.attempts
        number, started_at = attempts.number, self._clock.monotonic()
        outcome = await self._post(delivery)
        now = self._clock.monotonic()
        will_retry = self._queue.finish(
            queued, delivered=outcome.error is None, permanent=outcome.permanent, now=now
        )
        attempt = WebhookAttempt(
            endpoint=delivery.endpoint.url,
            number=number,
            started_at=started_at,
            duration_ms=(now - started_at) * 1000,
            status=outcome.status,
            error=outcome.error,
            will_retry=will_retry,
        )
        _log_attempt(delivery, attempt)
        self._count(delivery.announcement.event.type, attempt)
        delivery.announcement.attempted(attempt)
        if attempts.state is DeliveryState.EXHAUSTED:
            delivery.announcement.gave_up(f"{attempt.endpoint}: {attempt.error}")
        self._pump()

    def _count(self, event_type: str, attempt: WebhookAttempt) -> None:
        outcome = "no_answer" if attempt.status is None else f"{attempt.status // 100}xx"
        self._metrics.count("offhook_webhook_attempts", event_type, outcome)
        self._metrics.observe("offhook_webhook_attempt_seconds", attempt.duration_ms / 1000, outcome)

    async def _post(self, delivery: _Delivery) -> _Outcome:
        event, endpoint = delivery.announcement.event, delivery.endpoint
        body, timestamp = delivery.announcement.body, int(self._clock.wall())
        try:
            signatures = signature.sign(endpoint.secrets, webhook_id=event.id, timestamp=timestamp, body=body)
            response = await self._client.post(
                endpoint.url,
                content=body,
                headers=[
                    ("content-type", "application/json"),
                    ("user-agent", USER_AGENT),
                    ("webhook-id", event.id),
                    ("webhook-timestamp", str(timestamp)),
                    ("webhook-signature", signatures),
                ],
                policy=self._policy,
                timeout=self._timeout_s,
            )
        except OutboundError as error:
            return _Outcome(None, str(error), error.permanent)
        except signature.SecretError as error:
            return _Outcome(None, str(error), permanent=True)
        except Exception as error:
            log.exception("a delivery failed", extra={"event": "webhook.failed", "webhook_id": event.id})
            return _Outcome(None, f"internal error: {error!r}")
        return _Outcome(response.status, _fault(response))


def _fault(response: OutboundResponse) -> str | None:
    """Return why an answer is no delivery (API row W14), or `None`."""
    if 200 <= response.status < 300:
        return None
    if 300 <= response.status < 400:
        return f"redirects are not followed (to {response.headers.get('location', 'nowhere')[:200]!r})"
    text = response.body.decode("utf-8", "replace")[:200]
    said = "".join(char if char.isprintable() else " " for char in text).strip()
    return f"the endpoint said: {said}" if said else "not a 2xx"


def _log_attempt(delivery: _Delivery, attempt: WebhookAttempt) -> None:
    level = logging.INFO if attempt.error is None else logging.WARNING
    log.log(
        level,
        "%s to %s: %s",
        delivery.announcement.event.type,
        attempt.endpoint,
        attempt.error or attempt.status,
        extra={
            "event": "webhook.attempted",
            "webhook_id": delivery.announcement.event.id,
            "attempt": attempt.number,
            "status": attempt.status,
            "duration_ms": round(attempt.duration_ms, 1),
            "will_retry": attempt.will_retry,
        },
    )
