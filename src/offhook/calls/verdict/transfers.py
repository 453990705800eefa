"""What became of the last transfer that the app wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .record import Finding, Weight, find
from .story import Entry, Story, listed, mapping, number, seconds, text

__all__ = ["transfers"]

_OPEN = ("pending", "accepted", "progress")


def transfers(story: Story) -> list[Finding]:
    """Return why the last transfer failed; earlier ones do not count when a later one went through."""
    if story.reason == "transferred":
        return []
    if refused := _refused_here(story):
        return refused
    refers = [mapping(refer) for refer in listed(story.call.get("refers"))]
    if not refers:
        return []
    last = refers[-1]
    steps = [
        e for e in story.of_kind("call") if "target_uri" in e.details and e.value("refer") == _number(last)
    ]
    asked = [e for e in story.requests("refer") if steps and e.at <= steps[-1].at]
    found = _outcome(story, last, steps, asked[-1] if asked else None)
    return [found] if found is not None else []


def _number(refer: Mapping[str, Any]) -> float | None:
    return number(refer.get("refer"))


def _refused_here(story: Story) -> list[Finding]:
    """The last request never became a REFER; an earlier one that did not has been made good by it."""
    asked = story.requests("refer")
    if not asked:
        return []
    last, status = asked[-1], asked[-1].value("status") or 0
    said = (last.text("error") or f"HTTP {status:.0f}").rstrip(". ")[:300]
    at = seconds(last.at)
    if status == 502 and "does not take REFER" in said:
        return [find("refer_not_supported", Weight.HARM, f"the transfer at {at} was not tried: {said}", last)]
    if status in (400, 403):
        return [
            find(
                "refer_bad_request",
                Weight.HARM,
                f"your refer at {at} was refused with {status:.0f}: {said}",
                last,
            )
        ]
    return []


def _outcome(
    story: Story, refer: Mapping[str, Any], steps: list[Entry], asked: Entry | None
) -> Finding | None:
    status, sip = text(refer.get("status")), number(refer.get("sip_status"))
    target, reason = text(refer.get("target_uri"))[:200], text(refer.get("reason"))[:300]
    last = steps[-1] if steps else None
    at = f" at {seconds(last.at)}" if last is not None else ""
    was_taken = any(step.text("status") in ("accepted", "progress") for step in steps)
    rest = story.sip("REFER", incoming=False)
    said = f"{sip:.0f} {reason}".strip() if sip is not None else reason
    match status:
        case "failed" if sip is None:
            sentence = f"the transfer to {target} could not be sent: {reason or 'no way to the peer'}"
            return find("refer_unreachable", Weight.HARM, sentence, last, asked)
        case "failed" if was_taken:
            sentence = f"the trunk tried the transfer to {target}, and the target's answer{at} was {said}"
            return find("refer_target_failed", Weight.HARM, sentence, last, rest)
        case "failed":
            sentence = f"the trunk refused the transfer to {target}{at} with {said}{_explained(refer)}"
            return find("refer_refused", Weight.HARM, sentence, last, rest, asked)
        case "timeout" if was_taken or "NOTIFY" in reason:
            sentence = f"the trunk took the transfer to {target} and then said nothing more{at}: {reason}"
            return find("refer_no_notify", Weight.HARM, sentence, last, rest)
        case "timeout":
            return find(
                "refer_no_answer",
                Weight.HARM,
                f"no answer to the REFER to {target}{at}: {reason}",
                last,
                rest,
            )
        case "unknown":
            sentence = f"what became of the transfer to {target} was never said{at}: {reason}"
            return find("refer_unknown", Weight.HARM, sentence, last, rest)
        case "cancelled":
            return find(
                "refer_interrupted",
                Weight.NOTE,
                f"the transfer to {target} was not sent: {reason}",
                last,
                asked,
            )
        case "pending" if "no answer" in reason:
            return find(
                "refer_no_answer",
                Weight.HARM,
                f"the trunk has not answered the REFER to {target}: {reason}",
                last,
                rest,
            )
        case _ if status in _OPEN and story.is_over and was_taken:
            sentence = f"the call ended before the transfer to {target} had an outcome"
            return find("refer_unknown", Weight.NOTE, sentence, last, rest)
        case _:
            return None


def _explained(refer: Mapping[str, Any]) -> str:
    for name, value in mapping(refer.get("headers")).items():
        if isinstance(value, str) and any(
            word in str(name).lower() for word in ("error", "warning", "reason")
        ):
            return f" ({name}: {value[:200]})"
    return ""
