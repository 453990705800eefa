"""What is stored and shown of a call."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["EndReason", "Result", "Termination"]


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

    def to_api(self) -> dict[str, Any]:
        """Return its fields, without those that say nothing."""
        fields = {
            "result": self.result,
            "reason": self.reason,
            "sip_status": self.sip_status,
            "cause": self.cause,
        }
        return {name: value for name, value in fields.items() if value not in (None, "")}
