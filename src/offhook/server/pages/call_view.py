"""What a call's page shows, taken from the same bodies that the API gives: the call and its timeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .sequence import number_of
from .text import party, shown

__all__ = [
    "LIVE",
    "TURN_PARTS",
    "CallLine",
    "Outcome",
    "Said",
    "Turn",
    "Verdict",
    "call_line",
    "outcome",
    "title",
    "transcript",
    "turns",
    "verdict_view",
    "webhook_attempts",
]

_WHOSE = {
    "app": "your app's",
    "trunk": "the trunk's",
    "node": "this node's",
    "upstream": "the upstream's",
} | {
    "caller": "the caller's",
    "nobody": "",
    "unknown": "unknown",
}
LIVE = ("ringing", "accepted", "answered", "active")
_KINDS = {"success": "good", "client_error": "warn", "server_error": "bad", "upstream_error": "bad"}
_PARTS = (
    ("committed_ms", "silence"),
    ("transcript_ms", "transcript"),
    ("first_text_ms", "first words"),
    ("first_audio_ms", "first sound"),
    ("first_played_ms", "sending"),
)
TURN_PARTS = tuple(name for _, name in _PARTS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A word for how a call stands, and how it should look."""

    word: str
    kind: str
    is_live: bool = False


def outcome(call: Mapping[str, Any]) -> Outcome:
    """Return a call's state while it lives, and the reason of its end afterwards."""
    end = call.get("termination")
    if not end:
        state = str(call.get("state") or "unknown")
        return Outcome(state, "info" if state in LIVE else "plain", state in LIVE)
    reason = str(end.get("reason") or end.get("result") or "ended").replace("_", " ")
    return Outcome(reason, _KINDS.get(str(end.get("result")), "plain"))


@dataclass(frozen=True, slots=True)
class CallLine:
    """A call in a list."""

    id: str
    call: Mapping[str, Any]
    outcome: Outcome
    failed_transfer: str
    "What the last transfer came to, if it failed."
    seconds: float | None
    "How long it was or has been answered."
    said: str
    "Why it ended, in a sentence."


def call_line(call: Mapping[str, Any], now: float) -> CallLine:
    """Return a line of a list for the body of a call."""
    began, ended = call.get("answered_at"), call.get("ended_at")
    refers = call.get("refers") or ()
    last = refers[-1] if refers else {}
    failed = ""
    if last.get("status") in ("failed", "timeout"):
        failed = (
            shown(f"{last.get('sip_status') or ''} {last.get('reason') or ''}".strip(), 60) or "no answer"
        )
    return CallLine(
        id=str(call["id"]),
        call=call,
        outcome=outcome(call),
        failed_transfer=failed,
        seconds=((ended or now) - began) if began else None,
        said=str((call.get("termination") or {}).get("cause") or ""),
    )


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that was said, heard, pressed or done."""

    number: int
    at: float
    who: str
    "`caller`, `agent`, `tool` or `note`."
    text: str


def transcript(timeline: Mapping[str, Any]) -> list[Said]:
    """Return what was said on both sides, in order."""
    who = {"heard": "caller", "said": "agent", "tool_call": "tool", "dtmf": "caller", "interrupted": "note"}
    found = []
    for number, entry in _numbered(timeline):
        speaker = who.get(str(entry.get("kind")))
        if speaker is None:
            continue
        text = str(entry.get("title") or "")
        if entry["kind"] == "interrupted":
            text = f"The caller interrupted: {text.rstrip(': ')}"
        found.append(Said(number, float(entry.get("ms") or 0) / 1000, speaker, text))
    return found


@dataclass(frozen=True, slots=True)
class Turn:
    """Where the time of one answer went: `parts` are the milliseconds of each step, as `TURN_PARTS` names them."""

    number: int
    at: float
    total_ms: float
    parts: tuple[float | None, ...]


def turns(timeline: Mapping[str, Any]) -> list[Turn]:
    """Return the turns that were answered."""
    found = []
    for number, entry in _numbered(timeline):
        if entry.get("kind") != "turn":
            continue
        before, parts = 0.0, list[float | None]()
        for name, _ in _PARTS:
            moment = entry.get(name)
            if not isinstance(moment, int | float):
                parts.append(None)
                continue
            parts.append(round(max(0.0, moment - before), 1))
            before = max(before, float(moment))
        if before:
            found.append(Turn(number, float(entry.get("ms") or 0) / 1000, before, tuple(parts)))
    return found


def webhook_attempts(timeline: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """Return each attempt to tell the app something, with its place in the timeline."""
    return [
        (number, entry)
        for number, entry in _numbered(timeline)
        if entry.get("kind") == "webhook" and "attempt" in entry
    ]


def title(call: Mapping[str, Any]) -> str:
    """Return what a call's page is headed with: who called."""
    caller = party(call.get("from"))
    return caller.name or caller.number or str(call["id"])


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a call went as it did, with the entries that show it: number, title, seconds."""

    sentence: str
    whose: str
    remedy: str
    code: str
    kind: str
    evidence: tuple[tuple[int, str, float], ...]
    also: tuple[Verdict, ...]


def verdict_view(said: Mapping[str, Any], timeline: Mapping[str, Any]) -> Verdict:
    """Return the body of `GET /v1/realtime/calls/{id}/verdict` as it is shown."""
    entries = dict(_numbered(timeline))
    blame = str(said.get("blame") or "unknown")
    found = sorted(number for number in said.get("evidence", ()) if number in entries)
    return Verdict(
        sentence=str(said.get("sentence") or ""),
        whose=_WHOSE.get(blame, blame),
        remedy=str(said.get("remedy") or ""),
        code=str(said.get("code") or ""),
        kind={"nobody": "good", "unknown": "plain", "caller": "warn"}.get(blame, "bad"),
        evidence=tuple(
            (number, str(entries[number].get("title") or ""), float(entries[number].get("ms") or 0) / 1000)
            for number in found
        ),
        also=tuple(verdict_view(other, timeline) for other in said.get("also", ())),
    )


def _numbered(timeline: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return ((number_of(entry, place), entry) for place, entry in enumerate(timeline.get("data", ())))
