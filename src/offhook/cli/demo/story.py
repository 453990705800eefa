"""
The call as it is shown while it happens: what three processes say, as rows of one ladder on one clock.

Pure. The phone tells the SIP messages and what was spoken and heard; the node's log tells webhooks, API calls and what
was understood; the app tells what it decided.
"""

from __future__ import annotations

import bisect
import datetime
import json
from collections.abc import Mapping
from typing import Any

from offhook.calls.ladder import Arrow, Lane, Note, Row, from_entry, sip_label

__all__ = ["Story", "from_app", "from_node", "from_phone"]

_HELD_S = 0.4
"How long a row waits for earlier ones that another process tells later."


def from_phone(event: Mapping[str, Any]) -> list[Row]:
    """Return the rows of one JSON line of `offhook call --json`, at seconds since 1970."""
    at = float(event["at"])
    match event["event"]:
        case "sip":
            ends = (Lane.CALLER, Lane.OFFHOOK) if event["direction"] == "out" else (Lane.OFFHOOK, Lane.CALLER)
            return [Arrow(at, *ends, sip_label(event["message"]))]
        case "speaking" if event["state"] == "started":
            return [Note(at, Lane.CALLER, f"caller says: “{event['text']}”", "bold green", wide=True)]
        case "transcript":
            return [Note(at, Lane.CALLER, f"caller hears: “{event['text']}”", "green", wide=True)]
        case "answer":
            text = f"first sound {event['ms']} ms after the end of speech"
            return [Note(at, Lane.CALLER, text, "bold yellow", wide=True)]
        case "note":
            return [Note(at, Lane.CALLER, str(event["text"]))]
    return []


def from_node(line: Mapping[str, Any], *, sip: bool = False) -> list[Row]:
    """Return the rows of one line of the node's log; those of SIP messages only where no phone tells them."""
    room, _, kind = str(line.get("event", "")).partition(".")
    if room != "call" or kind in ("route", "sdp", "media", "response") or (kind == "sip" and not sip):
        return []  # `offhook explain` has them all
    if kind == "call" and str(line.get("text", "")).startswith(("leg: ", "INVITE for ")):
        return []
    if 100 <= (line.get("sip_status") or 0) < 200:
        return []  # a transfer's progress, which is in its NOTIFY
    at = datetime.datetime.fromisoformat(str(line["at"])).timestamp()
    if kind in ("webhook", "rest"):  # told when they ended; they stand where they began
        at -= float(line.get("duration_ms") or 0) / 1000
    rows = from_entry({**line, "kind": kind, "title": line.get("text", ""), "ms": 0})
    return [_moved(row, at) for row in rows]


def from_app(line: str, at: float) -> list[Row]:
    """Return the rows of one line that the example app printed: what it did, and JSON."""
    what, _, rest = line.partition(" {")
    try:
        details = json.loads("{" + rest)
    except ValueError:
        return []
    match what:
        case "decision":
            text = "{decision}: {caller_name}; {reason}".format_map(_Blank(details))
            return [Note(at, Lane.APP, text, "bold magenta")]
        case "error" | "refused a webhook":
            return [Note(at, Lane.APP, line, "bold red")]
    return []  # the rest shows as what it does to the node


class _Blank(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def _moved(row: Row, at: float) -> Row:
    if isinstance(row, Arrow):
        return Arrow(at, row.source, row.target, row.label, row.style)
    return Note(at, row.lane, row.text, row.style, row.wide)


class Story:
    """Puts rows in order: `add` them as they come, `take` those that nothing earlier can follow."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._start: float | None = None

    def add(self, rows: list[Row]) -> None:
        self._rows += rows

    def take(self, now: float, *, everything: bool = False) -> list[Row]:
        """Return rows in order of time, counted from the first."""
        rows = sorted(self._rows, key=lambda row: row.at)
        split = len(rows) if everything else bisect.bisect_right(rows, now - _HELD_S, key=lambda row: row.at)
        rows, self._rows = rows[:split], rows[split:]
        if rows and self._start is None:
            self._start = rows[0].at
        return [_moved(row, max(0.0, row.at - (self._start or 0.0))) for row in rows]
