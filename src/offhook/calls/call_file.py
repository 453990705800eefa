"""What is known of one call, as it is shown and as it is kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offhook.clock import Clock
from offhook.sip.flow import format_address
from offhook.sip.leg import Leg

from .carrier import carrier_call_id
from .journal import CallTimes, Journal
from .record import Termination
from .state import CallState

__all__ = ["CallFile"]


class CallFile:
    """Who called whom, by what way, and when. Times are Unix seconds."""

    def __init__(self, call_id: str, project_id: str, leg: Leg, clock: Clock, journal: Journal) -> None:
        self.created_at = clock.wall()
        self._began_at = clock.monotonic()
        self._answered_at: float | None = None
        self._ended_at: float | None = None
        self._call_id = call_id
        self._project_id = project_id
        invite, flow = leg.invite, leg.flow
        self._call = {
            "from": invite.headers.get("From"),
            "to": invite.headers.get("To"),
            "request_uri": invite.uri,
            "sip_call_id": leg.call_id,
            "carrier_call_id": carrier_call_id(invite.headers),
            "transport": flow.transport if flow else None,
            "remote": format_address(flow.remote) if flow else None,
        }
        self._clock = clock
        self._journal = journal

    def answered(self) -> None:
        self._answered_at = self._now()

    def ended(self) -> None:
        self._ended_at = self._now()

    def _now(self) -> float:
        """Return the time by a clock that nobody sets while the call lasts."""
        return self.created_at + self._clock.monotonic() - self._began_at

    def describe(
        self, state: CallState, termination: Termination | None, parts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the body of `GET /v1/realtime/calls/{id}`; `parts` is what the call's parts say of themselves."""
        return {
            "id": self._call_id,
            "object": "realtime.call",
            "project_id": self._project_id,
            "state": state.value,
            "created_at": int(self.created_at),
            "answered_at": int(self._answered_at) if self._answered_at else None,
            "ended_at": int(self._ended_at) if self._ended_at else None,
            **self._call,
            **parts,
            "termination": termination.to_api() if termination else None,
        }

    def save(self, described: Mapping[str, Any]) -> None:
        """Have the journal keep what `describe` has returned."""
        self._journal.save(described, CallTimes(self.created_at, self._answered_at, self._ended_at))
