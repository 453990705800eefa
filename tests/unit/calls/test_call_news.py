"""What sidebands hear of a call's webhooks, and until when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from offhook.calls.news import CallNews
from offhook.calls.ports import WebhookAttempt, WebhookEvent
from offhook.calls.timeline import Timeline
from offhook.clock import SystemClock
from offhook.sip.headers import Headers
from offhook.tenants import Project

URL = "https://app.example/hook"


class Told:
    """An announcer that keeps what it was given, so that attempts can be made by hand."""

    def __init__(self, *, heard: bool = True) -> None:
        self.heard = heard
        self.attempts: list[Callable[[WebhookAttempt], None]] = []

    def is_heard(self, project: Project, event_type: str) -> bool:
        return self.heard

    def announce(
        self,
        project: Project,
        event: WebhookEvent,
        *,
        urgent: bool,
        on_attempt: Callable[[WebhookAttempt], None],
        on_exhausted: Callable[[str], None],
    ) -> None:
        self.attempts.append(on_attempt)

    def attempt(self, which: int, status: int | None, error: str | None) -> None:
        self.attempts[which](WebhookAttempt(URL, 2, 1.0, 12.34, status, error, error is not None))


def test_attempts_are_published_until_the_call_is_over() -> None:
    announcer, clock = Told(), SystemClock()
    timeline = Timeline("rtc_u0_1", clock)
    news = CallNews("rtc_u0_1", Project(id="proj_x"), announcer, timeline, clock)
    published: list[tuple[str, dict[str, Any]]] = []
    news.publish = lambda event_type, **fields: published.append((event_type, fields))
    news.answered()
    announcer.attempt(0, 503, "not a 2xx")
    assert published == [
        (
            "call.webhook.attempted",
            {
                "event": "realtime.call.answered",
                "attempt": 2,
                "endpoint": URL,
                "status": 503,
                "duration_ms": 12.3,
                "error": "not a 2xx",
                "will_retry": True,
            },
        )
    ]
    news.ended({"reason": "hangup"})
    announcer.attempt(0, 200, None)
    announcer.attempt(1, 200, None)
    assert len(published) == 1
    assert [entry.details["status"] for entry in timeline.entries()] == [503, 200, 200]


def test_where_an_attempt_stopped_is_a_fact_on_the_timeline() -> None:
    """What judges a call does not read errors' words."""
    announcer, clock = Told(), SystemClock()
    timeline = Timeline("rtc_u0_1", clock)
    news = CallNews("rtc_u0_1", Project(id="proj_x"), announcer, timeline, clock)
    news.answered()
    announcer.attempts[0](WebhookAttempt(URL, 1, 1.0, 12.3, None, "no such host", True, kind="dns"))
    announcer.attempt(0, 503, "not a 2xx")
    assert [entry.details.get("fault") for entry in timeline.entries()] == ["dns", None]


def test_nothing_is_announced_that_nobody_subscribed_to() -> None:
    announcer, clock = Told(heard=False), SystemClock()
    timeline = Timeline("rtc_u0_1", clock)
    news = CallNews("rtc_u0_1", Project(id="proj_x"), announcer, timeline, clock)
    assert not news.incoming(Headers([("From", "<sip:a@b>")]), "rtp", lambda why: None)
    news.answered()
    news.ended({"reason": "hangup"})
    assert announcer.attempts == []
    assert [entry.title for entry in timeline.entries()] == ["nobody is subscribed to realtime.call.incoming"]
