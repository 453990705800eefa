"""Webhook events and what became of them, as they are kept. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["AttemptRecord", "Deliveries", "DeliveryQuery", "DeliveryRecord", "EventRecord", "Outbox"]


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that endpoints are told."""

    id: str
    "`evt_...`; the `webhook-id` of every attempt."
    project_id: str
    call_id: str | None
    type: str
    created_at: float
    body: bytes
    "The very bytes that are signed and sent, on every attempt."
    urgent: bool
    "It is news only while a phone rings."


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """One event on its way to one endpoint."""

    id: str
    "`whd_...`"
    event_id: str
    project_id: str
    endpoint_id: str
    url: str
    "Where the endpoint was when this was last written."
    state: str
    "`waiting`, `delivered`, `expired` (it was no longer news) or `exhausted` (nothing more will be tried)."
    attempts: int
    due_at: float | None
    "When the next attempt starts; `None`: there is none."
    last_status: int | None
    last_error: str | None
    created_at: float
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One POST of a delivery."""

    number: int
    started_at: float
    duration_ms: float
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class DeliveryQuery:
    """Which deliveries; what is `None` does not matter."""

    project_id: str | None = None
    call_id: str | None = None
    event_type: str | None = None
    endpoint_id: str | None = None
    state: str | None = None
    after: str | None = None
    "The id of the delivery that the page before ended with."
    limit: int = 20


class Outbox(Protocol):
    """Where events wait before they are sent, so that a crash loses none. What writes does not raise."""

    def add(self, event: EventRecord, deliveries: Sequence[DeliveryRecord]) -> Awaitable[bool]:
        """
        Take them in turn with all else that is kept: what is saved later is not committed earlier.

        What is returned gives True once they are committed, False when they never will be. It may be waited for in
        vain.
        """

    def save(
        self, delivery: DeliveryRecord, attempt: AttemptRecord | None, event: EventRecord | None = None
    ) -> None:
        """Keep what has become of a delivery; with `event`, also that, where `add` is not known to have done it."""

    async def unfinished(self) -> list[tuple[str, str, str, float]]:
        """Return project, endpoint, id and next attempt of each of this node's deliveries that still wait."""

    async def waiting(self, ids: Sequence[str]) -> list[tuple[EventRecord, DeliveryRecord]]:
        """Return those of these deliveries that wait, oldest first; all that was saved before counts. May raise."""


class Deliveries(Protocol):
    """What is known of deliveries. Both raise `PastUnavailable` (of `calls.past`) where it cannot be read."""

    async def search(self, query: DeliveryQuery) -> list[tuple[EventRecord, DeliveryRecord]] | None:
        """Return them newest first, without the events' bodies; `None` when `after` is unknown."""

    async def find(
        self, project_id: str | None, delivery_id: str
    ) -> tuple[EventRecord, DeliveryRecord, list[AttemptRecord]] | None:
        """Return a delivery with its event and its attempts; of another project: `None`."""
