"""One event on its way to one endpoint, and what is kept of it. Pure: time is handed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from offhook.tenants import DeliveryRecord, EventRecord

from .schedule import BACKOFF, Attempts, DeliveryState, RetryPolicy

__all__ = ["GONE", "Delivery", "Now", "Outcome", "is_stale", "resume", "resumed_due"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a POST went."""

    status: int | None
    error: str | None
    "Why it does not count as delivered; `None` on success."
    permanent: bool = False
    "The same POST cannot succeed later either."
    kind: str = ""
    "Where one without a status stopped: an `ErrorKind` of `offhook.outbound`, or `secret`, `gone`, `internal`."


GONE = Outcome(
    None,
    "the endpoint is gone: it was deleted, or the configuration no longer has it",
    permanent=True,
    kind="gone",
)


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks: deadlines are monotonic, what is kept is Unix time."""

    monotonic: float
    wall: float

    def on_wall(self, monotonic: float) -> float:
        return self.wall + monotonic - self.monotonic

    def on_monotonic(self, wall: float) -> float:
        return self.monotonic + wall - self.wall


@dataclass(slots=True, eq=False)
class Delivery:
    """Its identity, and what it has come to. `attempts` decides; this remembers."""

    id: str
    event: EventRecord
    endpoint_id: str
    url: str
    attempts: Attempts
    created_at: float
    stored: bool = False
    "Its first commit was seen. Until then each save writes the event, too."
    last: Outcome | None = None

    def record(self, now: Now, *, ended: str | None = None) -> DeliveryRecord:
        """Return it as it is to be kept; `ended` says why, where no attempt did."""
        state = self.attempts.state
        # A crash during an attempt leaves it to be made once more: it is kept as one that waits.
        waits = state in (DeliveryState.WAITING, DeliveryState.ATTEMPTING)
        return DeliveryRecord(
            id=self.id,
            event_id=self.event.id,
            project_id=self.event.project_id,
            endpoint_id=self.endpoint_id,
            url=self.url,
            state=DeliveryState.WAITING if waits else state,
            attempts=self.attempts.number,
            due_at=now.on_wall(self.attempts.due) if waits else None,
            last_status=self.last.status if self.last else None,
            last_error=ended or (self.last.error if self.last else None),
            created_at=self.created_at,
            finished_at=None if waits else now.wall,
        )


def is_stale(event: EventRecord, record: DeliveryRecord) -> bool:
    """
    Whether a new process has nothing to tell any more: the phone that rang does so no longer.

    Somebody asked for a redelivery, which is younger than its event, knowing that.
    """
    return event.urgent and record.created_at <= event.created_at


def resumed_due(due_at: float, now: Now, policy: RetryPolicy) -> float:
    """Return when the next attempt starts; a clock that was set back puts it off for no longer than a pause lasts."""
    return min(now.on_monotonic(due_at), now.monotonic + policy.longest)


def resume(
    event: EventRecord,
    record: DeliveryRecord,
    now: Now,
    draw: Callable[[], float],
    policy: RetryPolicy = BACKOFF,
) -> Delivery:
    """Return a delivery that another process began: its attempts and its backoff count on."""
    attempts = Attempts.resume(
        policy,
        number=record.attempts,
        due=resumed_due(record.due_at or 0.0, now, policy),
        give_up_at=now.on_monotonic(record.created_at) + policy.give_up_after,
        draw=draw,
    )
    last = Outcome(record.last_status, record.last_error) if record.attempts else None
    return Delivery(
        record.id,
        event,
        record.endpoint_id,
        record.url,
        attempts,
        record.created_at,
        stored=True,
        last=last,
    )
