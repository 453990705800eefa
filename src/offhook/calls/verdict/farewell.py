"""The reasons in a CANCEL or BYE of theirs (RFC 3326), and a BYE of ours that did not get through."""

from __future__ import annotations

import re
from typing import Final

from .record import Finding, Weight, find
from .story import Entry, Story, seconds

__all__ = ["cut_off", "is_taken_elsewhere", "unheard_bye"]

_REASON: Final = re.compile(
    r"^Reason[ \t]*:[ \t]*([^\r\n]{0,40}?)[ \t]*;[ \t]*cause=(\d{1,3})\b([^\r\n]{0,200})", re.I | re.M
)
_FAULTS: Final = {
    "q.850": frozenset((27, 34, 38, 41, 42, 44, 47, 63, 79, 88, 102, 111)),
    "sip": frozenset((408, 488, *range(500, 600))),
}
"Causes of ITU-T Q.850 that name a failure or a timer, and SIP statuses that do. All else is said of a normal end, too."


def _reasons(entry: Entry) -> list[tuple[str, int, str]]:
    """Return protocol, cause and line of each."""
    head = entry.message.partition("\r\n\r\n")[0]
    return [(match[1].lower(), int(match[2]), match[0]) for match in _REASON.finditer(head)]


def is_taken_elsewhere(cancel: Entry) -> bool:
    """Whether a CANCEL says that another phone was answered: by the final status there, or as Q.850 has it."""
    return any((protocol, cause) in (("sip", 200), ("q.850", 26)) for protocol, cause, _ in _reasons(cancel))


def cut_off(story: Story) -> Finding | None:
    """The other end hung up and said that something had failed there."""
    bye = story.sip("BYE", incoming=True)
    if bye is None:
        return None
    said = _reasons(bye)
    faults = [line for protocol, cause, line in said if cause in _FAULTS.get(protocol, ())]
    if len(faults) < len(said) or not faults:
        return None
    reason = faults[0].partition(":")[2].strip()
    text = f"the other end ended the call at {seconds(bye.at)} and named a fault as its reason: {reason}"
    return find("cut_off_by_trunk", Weight.HARM, text, bye)


def unheard_bye(story: Story, weight: Weight) -> list[Finding]:
    """We hung up, and the other end may not have noticed."""
    if story.sip("BYE", incoming=True, status=200) is not None:
        return []  # a node that stops soon after repeats the BYE at its next start, when nobody needs it
    failed = story.last("call", "BYE: failed")
    if failed is not None:
        tried = story.last("route", "could not send BYE")
        why = tried.title if tried is not None else failed.title
        text = f"the call was ended here at {seconds(story.ended_at)}, and the BYE did not get through: {why[:300]}"
        return [find("bye_not_answered", weight, text, story.sip("BYE", incoming=False), failed, tried)]
    unknown = story.sip("BYE", incoming=True, status=481)
    if unknown is not None and story.sip("BYE", incoming=True) is None:
        text = (
            "the other end answered our BYE with 481: it knew no such call any more, or did not recognize it"
        )
        return [find("bye_not_answered", Weight.NOTE, text, story.sip("BYE", incoming=False), unknown)]
    return []
