"""What is stored and shown of a call."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["EndReason", "Fault", "Result", "Termination"]


class Result(StrEnum):
    """Whose doing an end was."""

    SUCCESS = "success"
    CLIENT_ERROR = "client_error"
    "The caller's side or the trunk."
    SERVER_ERROR = "server_error"
    "This node."
    UPSTREAM_ERROR = "upstream_error"
    "The app, its webhook endpoint, or the engine's upstream."


class EndReason(StrEnum):
    """Why a call ended, as `realtime.call.ended` says it."""

    REMOTE_HANGUP = "remote_hangup"
    HANGUP = "hangup"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    UNANSWERED = "unanswered"
    TRANSFERRED = "transferred"
    MEDIA_TIMEOUT = "media_timeout"
    SESSION_EXPIRED = "session_expired"
    FAILED = "failed"
    SHUTDOWN = "shutdown"

    @property
    def q850(self) -> tuple[int, str]:
        """What the peer's network is told when this side hangs up: cause and text of ITU-T Q.850."""
        return _TEMPORARY_FAILURE if self in (EndReason.FAILED, EndReason.SHUTDOWN) else _CLEARING


class Fault(StrEnum):
    """What made a call impossible, or ended it: as a fact, for who judges; `Termination.cause` has it in words."""

    NODE_DRAINING = "node_draining"
    NODE_FULL = "node_full"
    SOURCE_FULL = "source_full"
    PROJECT_FULL = "project_full"
    NODE_NOT_READY = "node_not_ready"
    ENGINE_FULL = "engine_full"
    NO_COMMON_CODEC = "no_common_codec"
    SRTP_REQUIRED = "srtp_required"
    SRTP_REFUSED = "srtp_refused"
    OFFER_UNUSABLE = "offer_unusable"
    FALLBACK_FAILED = "fallback_failed"
    ENGINE_SLOW = "engine_slow"
    "Accepted, and not ready in time."
    ENGINE_UNAVAILABLE = "engine_unavailable"
    "Accepted, and there was none after all."
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    "Accepted, and no upstream took the call."
    ENGINE_FAILED = "engine_failed"
    "After the accept, or in mid-call; an upstream's end, too."
    NO_ACK = "no_ack"
    DIALOG_LOST = "dialog_lost"
    SESSION_TIMER = "session_timer_expired"
    SESSION_LIMIT = "session_limit"
    INTERNAL_ERROR = "internal_error"
    NODE_CRASHED = "node_crashed"


_CLEARING = (16, "Normal call clearing")
_TEMPORARY_FAILURE = (41, "Temporary failure")


@dataclass(frozen=True, slots=True)
class Termination:
    """The one value that REST, webhook, log and timeline print of a call's end."""

    result: Result
    reason: EndReason
    sip_status: int | None = None
    "The final status of the INVITE when the call was never answered."
    cause: str = ""
    "In words, for people: what happened and, where there is one, the remedy."
    fault: Fault | None = None
    "On the timeline only."

    def to_api(self) -> dict[str, Any]:
        """Return it as REST, webhook and events show it."""
        shown = {
            "result": self.result,
            "reason": self.reason,
            "sip_status": self.sip_status,
            "cause": self.cause,
        }
        return {key: value for key, value in shown.items() if value not in (None, "")}

    def details(self) -> dict[str, Any]:
        """Return it as the timeline has it."""
        return self.to_api() | ({"fault": self.fault} if self.fault is not None else {})
