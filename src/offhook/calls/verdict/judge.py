"""From a story to its verdict."""

from __future__ import annotations

from .catalogue import Blame
from .endings import ending
from .hosted import hosted
from .record import Finding, Verdict, Weight, find
from .sound import sound
from .story import Entry, Story
from .transfers import transfers
from .untold import undecided
from .voice import voice

__all__ = ["judge"]


def judge(story: Story) -> Verdict:
    """
    Return why the call went as it did: what explains most, with what else was found in `also`.

    Works for calls that live, are over, are another service's, or come from a bundle; raises nothing. What is not
    certain is not said: a story that shows no cause is `unknown`, and what did no harm is at most in `also`.
    """
    if story.is_hosted:
        found = [*hosted(story), *voice(story)]
    else:
        found = [*ending(story), *transfers(story), *sound(story), *_fallback(story), *_stand_in(story)]
        if not any(each.weight >= Weight.HARM and each.code in _MUTE for each in found):
            # With no sound from the caller there was nothing to answer.
            found += voice(story)
        found += _lost_events(story)
    return _verdict(found)


_MUTE = frozenset(
    {
        "no_audio_received",
        "caller_behind_nat",
        "media_address_private",
        "audio_from_elsewhere",
        "srtp_keys_wrong",
        "audio_unusable",
    }
)


def _verdict(found: list[Finding]) -> Verdict:
    if any(each.code == "cut_off_by_trunk" for each in found):
        # It was not the caller who hung up.
        found = [each for each in found if each.code != "hung_up_before_first_word"]
    distinct = list({each.code: each for each in reversed(found)}.values())[::-1]
    ranked = sorted(distinct, key=lambda each: -each.weight)
    first, *others = ranked
    if first.weight > Weight.ENDING:
        others = [each for each in others if each.weight != Weight.ENDING]
    if any(each.code in _MUTE or each.code == "audio_stopped" for each in ranked):
        others = [each for each in others if each.code != "media_timeout"]
    return _said(first, tuple(_said(each) for each in others))


def _said(finding: Finding, also: tuple[Verdict, ...] = ()) -> Verdict:
    return Verdict(finding.code, finding.blame, finding.sentence, finding.remedy, finding.evidence, also)


def _fallback(story: Story) -> list[Finding]:
    """The project's fallback took a call that the app should have had."""
    taken: Entry | None = story.first("call", "fallback accepts: ")
    if taken is None:
        return []
    why = taken.title.removeprefix("fallback accepts: ")[:300]
    text = f"your app did not take the call, so the project's fallback did: {why}"
    return [
        find("fallback_answered", Weight.HARM, text, taken),
        *undecided(story, taken, taken.at, Weight.HARM, "the fallback took the call"),
    ]


def _stand_in(story: Story) -> list[Finding]:
    """The project's fallback took a call whose own engine could not be had."""
    taken = story.first("call", "fallback stands in: ")
    if taken is None or story.reason == "failed":
        return []
    why = taken.title.removeprefix("fallback stands in: ")[:300]
    text = f"the engine that was asked for did not take the call, so the project's fallback did: {why}"
    blame: Blame = "upstream" if taken.text("fault") == "upstream_unavailable" else "node"
    return [find("fallback_stood_in", Weight.HARM, text, taken, blame=blame)]


def _lost_events(story: Story) -> list[Finding]:
    lost = [e for e in story.of_kind("webhook") if ": no more attempts: " in e.title]
    lost = [e for e in lost if not e.title.startswith("realtime.call.incoming")]
    if not lost:
        return []
    text = f"your app was never told of this: {lost[-1].title[:300]}"
    return [find("webhook_events_lost", Weight.NOTE, text, *lost)]
