"""What calls need from the rooms above them, which are handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from offhook.tenants import Project

__all__ = ["Announcement", "Announcer", "WebhookAttempt", "WebhookEvent"]


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """An event as the app gets it (API row W02)."""

    id: str
    "`evt_...`; also the `webhook-id` of every attempt."
    type: str
    created_at: int
    "Seconds since 1970 UTC."
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WebhookAttempt:
    """One delivery that was tried."""

    endpoint: str
    "The endpoint's URL."
    number: int
    "1 for the first."
    started_at: float
    "Monotonic seconds."
    duration_ms: float
    status: int | None
    "The HTTP status, or `None` when there was none."
    error: str | None
    "Why it does not count as delivered; `None` on success."
    will_retry: bool
    unstored: bool = False
    "It was sent from memory, since the event could not be stored in time: a crash would have lost it."
    kind: str = ""
    """
    Of one without a status, where it stopped: `url`, `refused`, `dns`, `connect`, `tls`, `timeout` or `protocol` of
    `offhook.outbound`; `secret`, `gone` or `internal`.
    """


class Announcement(Protocol):
    """One event on its way to the endpoints that asked for it."""

    def expire(self) -> None:
        """Retry no more: the call is decided. An attempt under way may finish."""


class Announcer(Protocol):
    """Tells the app. Never blocks, never raises: SIP must not feel it."""

    def is_heard(self, project: Project, event_type: str) -> bool:
        """Whether any endpoint of the project is subscribed to this type; else no event need be made for it."""

    def announce(
        self,
        project: Project,
        event: WebhookEvent,
        *,
        urgent: bool,
        on_attempt: Callable[[WebhookAttempt], None],
        on_exhausted: Callable[[str], None],
    ) -> Announcement | None:
        """
        Send an event to every endpoint of the project that is subscribed to its type.

        `urgent` is for a phone that rings: attempts follow each other after 0.5, 1, 2, 4 s ... until `expire`.
        `on_attempt` is called after each attempt, `on_exhausted` with the reason when nothing more will be tried.
        Returns `None` when no endpoint is subscribed (API row W18).
        """
