"""What the upstreams of a call did: took it, refused it, were lost, came back."""

from __future__ import annotations

from .record import Finding, Weight, find
from .story import Entry, Story, seconds

__all__ = ["interruptions", "is_rate_limit", "rate_limits", "upstream_end", "upstream_entry"]

_REFUSALS = {
    "rate_limited": "upstream_rate_limited",
    "refused": "upstream_refused",
    "error": "upstream_error",
    "unreachable": "upstream_unreachable",
}
"By kind. Of several upstreams that refused for several reasons, the first here is what can be mended best."


def upstream_end(story: Story) -> str:
    """Return the code for why no upstream had the call in the end."""
    since = _last(story, "opened")
    kinds = {
        entry.text("refused") for entry in story.of_kind("upstream") if since is None or entry.at >= since.at
    }
    for kind, code in _REFUSALS.items():
        if kind in kinds:
            return code
    return (
        "upstream_lost" if since is not None or _last(story, "lost") is not None else "upstream_unreachable"
    )


def upstream_entry(story: Story) -> Entry | None:
    """Return what shows it."""
    return _last(story, "refused") or _last(story, "lost") or story.last("upstream") or story.last("error")


def _last(story: Story, detail: str) -> Entry | None:
    found = [entry for entry in story.of_kind("upstream") if entry.details.get(detail)]
    return found[-1] if found else None


def interruptions(story: Story) -> list[Finding]:
    """An upstream that was lost in mid-call; not where that ended the call."""
    lost = _last(story, "lost")
    if lost is None or story.reason == "failed":
        return []
    opened = next((e for e in story.of_kind("upstream") if e.at >= lost.at and e.text("opened")), None)
    why = lost.title.removeprefix("lost: ")[:200]
    if opened is not None:
        after = seconds(opened.at - lost.at)
        text = f"the upstream was lost at {seconds(lost.at)} ({why}) and open again {after} later"
        return [find("upstream_interrupted", Weight.NOTE, text, lost, opened)]
    if story.ended_at - lost.at > 1:
        text = f"the upstream was lost at {seconds(lost.at)} ({why}) and did not come back"
        return [find("upstream_lost", Weight.HARM, text, lost, story.ending)]
    return []


def rate_limits(story: Story) -> list[Finding]:
    """What an upstream answered itself, by the code of its error. Of no harm where the agent spoke again after it."""
    limited = [e for e in story.of_kind("error", "response") if is_rate_limit(e)]
    if not limited or not (story.engine == "upstream" or story.is_hosted):
        return []
    last = limited[-1]
    said = story.last("said")
    weight = Weight.NOTE if said is not None and said.at > last.at else Weight.HARM
    text = f"the upstream said at {seconds(last.at)}: {last.title.removeprefix('upstream: ')[:300]}"
    return [find("upstream_rate_limited", weight, text, last)]


def is_rate_limit(entry: Entry) -> bool:
    code = entry.text("code").lower()
    return "rate_limit" in code or "quota" in code
