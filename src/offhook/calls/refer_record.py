"""What is kept and shown of one REFER: `GET /v1/realtime/calls/{id}/refers/{n}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from offhook.clock import iso_time

__all__ = ["FINAL", "ReferRecord", "cut_off", "refer_title"]

FINAL = frozenset({"completed", "completed_unconfirmed", "failed", "unknown", "timeout", "cancelled"})

MAX_UPDATES = 100
"Of one REFER: a peer may send NOTIFY without end. Verdicts are kept beyond it."


def refer_title(brief: Mapping[str, Any]) -> str:
    """Say in one line how a transfer stands."""
    said = " ".join(str(part) for part in (brief["sip_status"], brief["reason"]) if part)
    title = f"transfer {brief['refer']} to {brief['target_uri']}: {brief['status']}"
    return f"{title}, {said}" if said else title


def cut_off(resource: Mapping[str, Any], why: str, at: float) -> dict[str, Any] | None:
    """Return the resource of a transfer whose outcome nobody will know, or `None` for one that has its outcome."""
    if resource["status"] in FINAL:
        return None
    state = {"status": "unknown", "sip_status": None, "reason": why}
    return {**resource, **state, "updates": [*resource["updates"], {"at": iso_time(at), **state}]}


@dataclass(slots=True)
class ReferRecord:
    """
    One transfer that the app asked for, and each step of it with its time.

    `status` is `pending` (not sent, or not answered), `accepted`, `progress`, or one of `FINAL`; `cancelled` is one
    that was never sent.
    """

    number: int
    "Which of the call's transfers; from 1."
    call_id: str
    target: str
    created_at: float
    "Unix seconds, as all times here."
    request_id: str = ""
    "Of the POST that asked for it."
    status: str = "pending"
    sip_status: int | None = None
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    "In which the peer explained a refusal."
    dropped: int = 0
    "Updates that were left out."
    _updates: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def has_completed(self) -> bool:
        return self.status.startswith("completed")

    def update(
        self,
        status: str,
        sip_status: int | None,
        reason: str,
        *,
        at: float,
        headers: dict[str, str] | None = None,
    ) -> bool:
        """Note a step. Returns whether it is worth telling: there may be too many."""
        if len(self._updates) >= MAX_UPDATES and status not in FINAL:
            self.dropped += 1
            return False
        self.status, self.sip_status, self.reason = status, sip_status, reason
        self.headers = headers or {}
        self._updates.append({"at": iso_time(at), **self._state()})
        return True

    def brief(self) -> dict[str, Any]:
        """Return it as events and a call's own object have it."""
        return {
            "object": "realtime.call.refer",
            "refer": self.number,
            "target_uri": self.target,
            **self._state(),
            "request_id": self.request_id or None,
        }

    def to_api(self) -> dict[str, Any]:
        """Return the resource."""
        return {
            **self.brief(),
            "call_id": self.call_id,
            "created_at": int(self.created_at),
            "updates": list(self._updates),
            "dropped": self.dropped,
        }

    def _state(self) -> dict[str, Any]:
        said = {"headers": self.headers} if self.headers else {}
        return {"status": self.status, "sip_status": self.sip_status, "reason": self.reason, **said}
