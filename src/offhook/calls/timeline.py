"""Everything that happened to one call, in order, on one clock."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from offhook.clock import Clock
from offhook.trace import RoutingDecision, StateChange, WireMessage

__all__ = ["Timeline", "TimelineEntry"]

log = logging.getLogger("offhook.calls")

MAX_ENTRIES = 5_000
"A call of an hour with a turn every five seconds has some 4,000; past that the middle of the story is not kept."


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    at: float
    "Monotonic seconds."
    kind: str
    "`sip`, `route`, `sdp`, `webhook`, `rest`, `sideband`, `session`, `turn`, `media` or `call`."
    title: str
    "One line for people."
    details: Mapping[str, Any]


class Timeline:
    """
    The record of one call. Each entry is also one line of the node's log, with the call's id.

    SIP messages are kept whole here (`details["message"]`); the log gets their first line only.
    """

    def __init__(self, call_id: str, clock: Clock) -> None:
        self._call_id = call_id
        self._clock = clock
        self._wall_offset = clock.wall() - clock.monotonic()
        self._entries: list[TimelineEntry] = []
        self.dropped = 0

    def record(self, kind: str, title: str, /, *, at: float | None = None, **details: Any) -> None:
        """Add an entry, now or at the given monotonic time."""
        entry = TimelineEntry(self._clock.monotonic() if at is None else at, kind, title, details)
        if len(self._entries) >= MAX_ENTRIES:
            self.dropped += 1
            return
        self._entries.append(entry)
        if log.isEnabledFor(logging.INFO):
            shown = {key: value for key, value in details.items() if key != "message"}
            log.info(title, extra={"event": f"call.{kind}", "call_id": self._call_id, **_safe(shown)})

    def trace(self, item: WireMessage | StateChange | RoutingDecision) -> None:
        """Add what the SIP room says about this call."""
        match item:
            case WireMessage():
                self._record_message(item)
            case StateChange():
                self.record(
                    "call",
                    f"{item.subject}: {item.state}" + (f" ({item.reason})" if item.reason else ""),
                    at=item.at,
                )
            case RoutingDecision():
                self.record("route", item.text, at=item.at, method=item.method, **item.details)

    def entries(self) -> list[TimelineEntry]:
        """Return all entries by time. Threads of a call may report late, so order of arrival is not enough."""
        return sorted(self._entries, key=lambda entry: entry.at)

    def to_api(self) -> dict[str, Any]:
        """Return the body of `GET /v1/realtime/calls/{id}/timeline`."""
        entries = self.entries()
        start = entries[0].at if entries else 0.0
        return {
            "object": "realtime.call.timeline",
            "call_id": self._call_id,
            "started_at": self._iso(start) if entries else None,
            "dropped": self.dropped,
            "data": [
                {
                    "at": self._iso(entry.at),
                    "ms": round((entry.at - start) * 1000, 1),
                    "kind": entry.kind,
                    "title": entry.title,
                    **entry.details,
                }
                for entry in entries
            ],
        }

    def _record_message(self, item: WireMessage) -> None:
        text = item.data.decode("utf-8", "replace")
        self.record(
            "sip",
            text.split("\r\n", 1)[0],
            at=item.at,
            direction=item.direction,
            transport=item.transport,
            local=item.local,
            remote=item.remote,
            message=text,
        )

    def _iso(self, at: float) -> str:
        moment = datetime.datetime.fromtimestamp(at + self._wall_offset, datetime.UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def _safe(details: Mapping[str, Any]) -> dict[str, Any]:
    """Rename what would overwrite a field of `logging.LogRecord`, which `logging` refuses."""
    return {(f"{key}_" if key in _RECORD_FIELDS else key): value for key, value in details.items()}
