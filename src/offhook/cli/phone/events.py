"""What the phone tells: one event for each thing that happens, for programs as JSON lines and for people."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from offhook.calls.ladder import printable

__all__ = ["Report", "human_report", "json_report"]

Report = Callable[..., None]
"""Called with the event's name, `at` (monotonic seconds, now when absent) and the event's fields by keyword."""


def json_report(write: Callable[[str], None]) -> Report:
    """Return a report that writes one JSON object a line: `event`, `at` (seconds since 1970), the event's fields."""
    offset = time.time() - time.monotonic()

    def report(event: str, *, at: float | None = None, **fields: Any) -> None:
        moment = round((time.monotonic() if at is None else at) + offset, 4)
        write(orjson.dumps({"event": event, "at": moment, **fields}).decode())

    return report


def human_report(console: Console) -> Report:
    """Return a report for people: seconds since the first event, and a sentence."""
    started: list[float] = []

    def report(event: str, *, at: float | None = None, **fields: Any) -> None:
        moment = time.monotonic() if at is None else at
        if not started:
            started.append(moment)
        if line := _sentence(event, fields):
            text, style = line
            shown = Text(f"{moment - started[0]:8.3f}  ", style="dim")
            console.print(shown.append(printable(text), style=style), soft_wrap=True)

    return report


def _sentence(event: str, fields: dict[str, Any]) -> tuple[str, str] | None:
    match event:
        case "sip":
            return f"{'-->' if fields['direction'] == 'out' else '<--'} {fields['title']}", "cyan"
        case "dialling":
            return f"dialling {fields['uri']} from {fields['local']}", ""
        case "media":
            secured = f", by SRTP ({fields['srtp']})" if fields.get("srtp") else ""
            return f"sound is {fields['codec']} to and from {fields['remote']}{secured}", ""
        case "speaking" if fields["state"] == "started":
            return f"caller: {fields['text']}", "bold green"
        case "heard" if fields["state"] == "ended":
            return f"heard the other side for {fields['seconds']:.1f} s", ""
        case "transcript":
            return f"agent:  {fields['text']}", "bold magenta"
        case "answer":
            return f"answered {fields['ms']} ms after the caller stopped speaking", "yellow"
        case "digits":
            return f"keys {fields['digits']}", "bold green"
        case "refer":
            return f"asked to call {fields['target']} instead: answered {fields['answer']}", "bold"
        case "notify":
            return f"told the transfer's progress: {fields['status']}", ""
        case "note" | "route":
            return str(fields["text"]), "dim"
        case "ended":
            return f"the call is over: {fields['cause']}", "bold"
        case "recording":
            return f"recording: {fields['path']} (left: caller, right: agent)", ""
    return None
