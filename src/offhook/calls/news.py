"""What the app is told about one call, by webhook, and what came of telling it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from offhook import ids
from offhook.clock import Clock
from offhook.sip.headers import Headers, full_name
from offhook.tenants import Project

from .ports import Announcement, Announcer, WebhookAttempt, WebhookEvent
from .timeline import Timeline

__all__ = ["RECORDING_SAVED", "CallNews", "recording_data"]

INCOMING = "realtime.call.incoming"
RECORDING_SAVED = "realtime.call.recording.saved"

_CREDENTIALS = frozenset({"authorization", "proxy-authorization"})


class CallNews:
    """
    The webhook events of one call; each attempt to deliver one goes on the call's timeline.

    `incoming` is urgent and ends with `decided`; the extension events (`answered`, `ended`, `refer.updated`,
    `recording.saved`) reach only endpoints that subscribed to them by name.
    """

    def __init__(
        self, call_id: str, project: Project, announcer: Announcer, timeline: Timeline, clock: Clock
    ) -> None:
        self._call_id = call_id
        self._project = project
        self._announcer = announcer
        self._timeline = timeline
        self._clock = clock
        self.publish: Callable[..., None] = _unpublished
        "Told the type and the fields of what sidebands may hear of the attempts."
        self._incoming: Announcement | None = None
        self._on_undeliverable: Callable[[str], None] | None = None
        self._last_attempt: WebhookAttempt | None = None

    def incoming(
        self, headers: Headers, media_security: str, on_undeliverable: Callable[[str], None]
    ) -> bool:
        """
        Tell of the INVITE with these headers, and of what its offer leads to: "rtp" or "srtp".

        Returns False when nobody is subscribed (API row W18).

        `on_undeliverable` is told the reason once no endpoint has got it nor ever will.
        """
        if not self._announcer.is_heard(self._project, INCOMING):
            return self._unheard()
        data = {
            # Credentials are for the trunk and us alone (API row W03).
            "sip_headers": [
                {"name": full_name(name), "value": value}
                for name, value in headers
                if name.lower() not in _CREDENTIALS
            ],
            "sip_media_security": media_security,
        }
        self._on_undeliverable = on_undeliverable
        self._incoming = self._announce(INCOMING, data, urgent=True)
        return self._incoming is not None or self._unheard()

    def _unheard(self) -> bool:
        self._timeline.record("webhook", f"nobody is subscribed to {INCOMING}", type=INCOMING, endpoints=0)
        return False

    def decided(self) -> None:
        """Somebody accepted or rejected, or the caller gave up: `incoming` need not be told any more."""
        self._on_undeliverable = None
        if self._incoming is not None:
            self._incoming.expire()

    def answered(self) -> None:
        self._announce("realtime.call.answered", {})

    def refer_updated(self, update: Mapping[str, Any]) -> None:
        self._announce("realtime.call.refer.updated", update)

    def recording_saved(self, recording: Mapping[str, Any]) -> None:
        self._announce(RECORDING_SAVED, recording_data(recording))

    def ended(self, termination: Mapping[str, Any]) -> None:
        """Tell how the call ended. `call.ended` is the last event of sidebands: they hear of no more attempts."""
        self.publish = _unpublished
        self._announce("realtime.call.ended", termination)

    def silence(self) -> str:
        """Say what is known of why nobody decided."""
        attempt = self._last_attempt
        if attempt is None:
            return "no webhook attempt has ended yet"
        if attempt.error:
            return f"the last webhook attempt failed: {_outcome(attempt)}"
        return f"the webhook was answered {attempt.status} after {attempt.duration_ms:.0f} ms"

    def _announce(
        self,
        event_type: str,
        data: Mapping[str, Any],
        *,
        urgent: bool = False,
    ) -> Announcement | None:
        if not self._announcer.is_heard(self._project, event_type):
            return None
        event = WebhookEvent(
            ids.opaque_id("evt"), event_type, int(self._clock.wall()), {"call_id": self._call_id, **data}
        )

        # A delivery may wait for days, and thousands of them for one endpoint: they must not hold their calls' stories.
        this = weakref.ref(self)

        def attempted(attempt: WebhookAttempt) -> None:
            if (news := this()) is not None:
                if urgent:
                    news._last_attempt = attempt
                news._record(event_type, attempt)

        def exhausted(reason: str) -> None:
            if (news := this()) is not None:
                news._timeline.record("webhook", f"{event_type}: no more attempts: {reason}")
                if urgent and news._on_undeliverable is not None:
                    news._on_undeliverable(reason)

        return self._announcer.announce(
            self._project, event, urgent=urgent, on_attempt=attempted, on_exhausted=exhausted
        )

    def _record(self, event_type: str, attempt: WebhookAttempt) -> None:
        said = {
            "attempt": attempt.number,
            "endpoint": attempt.endpoint,
            "status": attempt.status,
            "duration_ms": round(attempt.duration_ms, 1),
            "error": attempt.error,
            "will_retry": attempt.will_retry,
        }
        self._timeline.record(
            "webhook",
            f"attempt {attempt.number} to {attempt.endpoint}: {_outcome(attempt)}",
            at=attempt.started_at,
            type=event_type,
            **said,
            **({"fault": attempt.kind} if attempt.kind else {}),
            **({"unstored": True} if attempt.unstored else {}),
        )
        self.publish("call.webhook.attempted", event=event_type, **said)


def _unpublished(event_type: str, **fields: Any) -> None:
    return


def recording_data(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the app is told of a recording, given what `GET .../recording` says of it."""
    left_out = ("id", "object", "project_id")
    return {"recording_id": described["id"]} | {
        name: value for name, value in described.items() if name not in left_out
    }


def _outcome(attempt: WebhookAttempt) -> str:
    said = f"HTTP {attempt.status}" if attempt.status is not None else "no answer"
    return f"{said}: {attempt.error}" if attempt.error else said
