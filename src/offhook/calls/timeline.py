"""Everything that happened to one call, in order, on one clock."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from offhook.clock import Clock, iso_time
from offhook.trace import RoutingDecision, StateChange, WireMessage

from .redaction import redact

__all__ = ["Timeline", "TimelineEntry", "timeline_body"]

log = logging.getLogger("offhook.calls")

FIRST_ENTRIES, LAST_ENTRIES = 4_000, 1_000
"""
What is kept of a call: its beginning and its end. One of an hour with a turn every five seconds has some 4,000 entries;
of one that has more, the middle of the story is left out.
"""
MAX_KEPT = 20_000
"Entries that are handed on to be kept for good, and after them how the call ended."
MAX_MESSAGES = 4 * 1024 * 1024
"Characters of SIP messages kept for one call. A usual call has some 10,000; a peer that floods a dialog has no end."
MAX_TITLE = 500


@dataclass(slots=True)
class TimelineEntry:
    """To be left as it is. Not frozen: to make a frozen one takes four times as long, and a call has dozens."""

    at: float
    "Monotonic seconds."
    kind: str
    "`sip`, `route`, `sdp`, `webhook`, `rest`, `sideband`, `relay`, `session`, `turn`, `media` or `call`."
    title: str
    "One line for people."
    details: Mapping[str, Any]
    number: int = 0
    "Counts the call's entries from 0, in the order in which they were recorded; a verdict names its evidence so."


class Timeline:
    """
    The record of one call. Each entry is also one line of the node's log, with the call's id.

    SIP messages are kept whole here (`details["message"]`), but for credentials and media keys; the log gets their
    first line only. `keep` is handed each entry with the call's id, its number and its wall-clock time.
    """

    def __init__(
        self,
        call_id: str,
        clock: Clock,
        keep: Callable[[str, int, float, TimelineEntry], None] | None = None,
    ) -> None:
        self._call_id = call_id
        self._clock = clock
        self._keep = keep
        self._count = 0
        self._wall_offset = clock.wall() - clock.monotonic()
        self._first: list[TimelineEntry] = []
        self._last: deque[TimelineEntry] = deque(maxlen=LAST_ENTRIES)
        self._messages = 0
        self.dropped = 0
        "How many entries were left out."

    def record(self, kind: str, title: str, /, *, at: float | None = None, **details: Any) -> None:
        """Add an entry, now or at the given monotonic time."""
        self._add(self._clock.monotonic() if at is None else at, kind, title, details)

    def _add(self, at: float, kind: str, title: str, details: dict[str, Any]) -> None:
        if len(title) > MAX_TITLE:
            title = title[:MAX_TITLE] + "..."
        entry = TimelineEntry(at, kind, title, details, self._count)
        # However long the story, its end is kept: verdicts and metrics are made of it.
        if self._keep is not None and (self._count < MAX_KEPT or (kind == "call" and "result" in details)):
            self._keep(self._call_id, self._count, entry.at + self._wall_offset, entry)
        self._count += 1
        if len(self._first) < FIRST_ENTRIES:
            self._first.append(entry)
        else:
            self.dropped += len(self._last) == LAST_ENTRIES
            self._last.append(entry)
        if log.isEnabledFor(logging.INFO):
            shown = {key: value for key, value in details.items() if key != "message"}
            log.info(title, extra={"event": f"call.{kind}", "call_id": self._call_id, **_safe(shown)})

    def trace(self, item: WireMessage | StateChange | RoutingDecision) -> None:
        """Add what the SIP room says about this call."""
        match item:
            case WireMessage():
                self._record_message(item)
            case StateChange():
                why = f" ({item.reason})" if item.reason else ""
                self._add(item.at, "call", f"{item.subject}: {item.state}{why}", {})
            case RoutingDecision():
                self.record("route", item.text, at=item.at, method=item.method, **item.details)

    def entries(self) -> list[TimelineEntry]:
        """Return all entries by time. Threads of a call may report late, so order of arrival is not enough."""
        return _by_time((*self._first, *self._last))

    def to_api(self) -> dict[str, Any]:
        """Return the body of `GET /v1/realtime/calls/{id}/timeline`."""
        return self.freeze()()

    def freeze(self) -> Callable[[], dict[str, Any]]:
        """Return what makes the body of what is known now; in a thread, since thousands of entries take 20 ms."""
        known, dropped = (*self._first, *self._last), self.dropped
        return lambda: timeline_body(self._call_id, _by_time(known), dropped, offset=self._wall_offset)

    def _record_message(self, item: WireMessage) -> None:
        text = redact(item.data.decode("utf-8", "replace"))
        first_line = text.split("\r\n", 1)[0]
        self._messages += len(text)
        if self._messages > MAX_MESSAGES:
            text = f"{first_line[:MAX_TITLE]}\r\n(the rest is not kept: this call's messages are too large)"
        details = {
            "direction": item.direction,
            "transport": item.transport,
            "local": item.local,
            "remote": item.remote,
            "message": text,
        }
        self._add(item.at, "sip", first_line, details)


def _by_time(entries: Iterable[TimelineEntry]) -> list[TimelineEntry]:
    return sorted(entries, key=attrgetter("at"))


def timeline_body(
    call_id: str, entries: Sequence[TimelineEntry], dropped: int, *, offset: float = 0.0
) -> dict[str, Any]:
    """
    Return the body of `GET /v1/realtime/calls/{id}/timeline`.

    `entries` are in order of time; `offset` makes their times Unix seconds.
    """
    start = entries[0].at + offset if entries else 0.0
    return {
        "object": "realtime.call.timeline",
        "call_id": call_id,
        "started_at": iso_time(start) if entries else None,
        "dropped": dropped,
        "data": [
            {
                "number": entry.number,
                "at": iso_time(entry.at + offset),
                "ms": round((entry.at + offset - start) * 1000, 1),
                "kind": entry.kind,
                "title": entry.title,
                **entry.details,
            }
            for entry in entries
        ],
    }


# What `logging` refuses to have overwritten, and what the log's lines have fields of their own for.
_TAKEN = frozenset(vars(logging.makeLogRecord({}))) | {
    "asctime",
    "at",
    "call_id",
    "event",
    "level",
    "logger",
    "message",
    "text",
}


def _safe(details: Mapping[str, Any]) -> dict[str, Any]:
    """Rename details whose names have another meaning in a log line."""
    return {(f"{key}_" if key in _TAKEN else key): value for key, value in details.items()}
