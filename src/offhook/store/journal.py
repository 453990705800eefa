"""The calls' journal on the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offhook.calls.journal import CallTimes
from offhook.calls.timeline import TimelineEntry

from . import schema
from .json_text import Json, plain
from .writer import Writer

__all__ = ["StoreJournal"]


class StoreJournal:
    """
    A `Journal` whose rows are written a moment later, by the writer's thread.

    What it is handed is made JSON at once: its owners go on with it.
    """

    def __init__(self, writer: Writer, node: str) -> None:
        self._writer = writer
        self._node = node

    def save(self, described: Mapping[str, Any], times: CallTimes) -> None:
        end = described["termination"] or {}
        row = {
            "id": described["id"],
            "project_id": described["project_id"],
            "node": self._node,
            "created_at": times.created_at,
            "answered_at": times.answered_at,
            "ended_at": times.ended_at,
            "state": described["state"],
            "from_user": plain(described["from"] or ""),
            "to_user": plain(described["to"] or ""),
            "request_uri": plain(described["request_uri"]),
            "sip_call_id": plain(described["sip_call_id"]),
            "carrier_call_id": plain(described["carrier_call_id"] or "") or None,
            "result": end.get("result"),
            "reason": end.get("reason"),
            "sip_status": end.get("sip_status"),
            "described": Json.of(described),
        }
        self._writer.keep(schema.calls, row["id"], row)

    def refer(self, described: Mapping[str, Any]) -> None:
        row = {
            "call_id": described["call_id"],
            "number": described["refer"],
            "described": Json.of(described),
        }
        self._writer.keep(schema.refers, (row["call_id"], row["number"]), row)

    def entry(self, call_id: str, number: int, at: float, entry: TimelineEntry) -> None:
        text = Json.of((number, at, entry.kind, entry.title, entry.details))
        self._writer.extend(schema.timeline_pieces, call_id, number, text)
        if entry.kind == "turn":
            turn = {"call_id": call_id, "number": number, "at": at, "described": Json.of(entry.details)}
            self._writer.append(schema.turns, turn)

    def dialog(self, call_id: str, snapshot: Mapping[str, Any] | None) -> None:
        row = None
        if snapshot is not None:
            row = {"call_id": call_id, "node": self._node, "snapshot": Json.of(snapshot)}
        self._writer.keep(schema.dialogs, call_id, row)
