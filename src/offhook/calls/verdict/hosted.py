"""Calls that another service answers: what can be said of them is what their API showed."""

from __future__ import annotations

from .record import Finding, Weight, find
from .story import Entry, Story, seconds

__all__ = ["hosted"]

_STATES = {
    "rejected": ("rejected", Weight.CAUSE, "your app rejected the call"),
    "referred": ("transferred", Weight.ENDING, "the upstream took the transfer"),
    "ended": ("app_hung_up", Weight.ENDING, "the call is over"),
    "accepted": ("in_progress", Weight.ENDING, "accepted; whether the call still goes on is not seen here"),
}


def hosted(story: Story) -> list[Finding]:
    """Return how a hosted call stands, and requests that its upstream refused."""
    found: list[Finding] = []
    for verb in ("accept", "refer", "reject"):
        relayed = [e for e in story.of_kind("relay") if e.text("verb") == verb]
        if relayed and (refusal := _refusal(story, verb, relayed[-1])) is not None:
            found.append(refusal)
    return [*found, _state(story)]


def _state(story: Story) -> Finding:
    state = story.call.get("state")
    code, weight, text = _STATES.get(state if isinstance(state, str) else "", ("unknown", Weight.ENDING, ""))
    if code == "app_hung_up" and not any((e.value("status") or 0) < 300 for e in story.requests("hangup")):
        code = "caller_hung_up"
    last = story.last("call") or (story.entries[-1] if story.entries else None)
    text = text or "nothing that was asked of this call worked, and its phone leg is not seen here"
    return find(code, weight, f"{text} (as far as its API shows)", last)


def _refusal(story: Story, verb: str, relayed: Entry) -> Finding | None:
    status, upstream = relayed.value("upstream_status"), relayed.text("upstream") or "the upstream"
    weight = Weight.CAUSE if verb == "accept" else Weight.HARM
    at = seconds(relayed.at)
    if status is None:
        text = f"{upstream} gave no answer to your {verb} at {at}: {relayed.title}"
        return find("upstream_unreachable", weight, text, relayed)
    if status < 400:
        return None
    text = f"{upstream} answered your {verb} at {at} with {status:.0f}"
    if status == 429:
        return find("upstream_rate_limited", weight, text, relayed)
    if status == 404 and verb == "accept":
        return find(
            "accepted_too_late", weight, f"{text}: it knew no such call any more, or never did", relayed
        )
    if verb == "refer":
        return find("refer_refused", weight, text, relayed, blame="upstream")
    if status < 500:
        return find("accept_refused", weight, text, relayed)
    return find("upstream_refused", weight, text, relayed)
