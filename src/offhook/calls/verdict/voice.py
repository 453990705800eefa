"""How the agent did: its engine or upstream, its tools, its first word, and the app's sideband."""

from __future__ import annotations

import statistics

from .catalogue import Blame
from .record import Finding, Weight, find
from .story import Entry, Story, mapping, number, seconds
from .untold import attempts_of
from .upstreams import interruptions, is_rate_limit, rate_limits

__all__ = ["voice"]

DUE_S = 5.0
"By then somebody should have spoken, a tool should have answered."
SLOW_MS = 3000.0
"The middle one of several answers; of a single one, this and more than as much again."
VERY_SLOW_MS = 8000.0

_STAGES = (
    ("committed_ms", "until the end of the caller's turn was certain"),
    ("transcript_ms", "for the transcript"),
    ("first_text_ms", "for the model's first text"),
    ("first_audio_ms", "for the first sound of the voice"),
    ("first_played_ms", "until that was sent"),
)


def voice(story: Story) -> list[Finding]:
    """Return what was wrong with the agent of a call that was answered."""
    if not story.was_answered and not story.is_hosted:
        return []
    found = [*rate_limits(story), *interruptions(story), *_responses(story), *_slow(story), *_tools(story)]
    if not story.is_hosted and not found:
        found += _first_word(story)
    return found


def _responses(story: Story) -> list[Finding]:
    """The last answer failed, and none came after it."""
    done = [e for e in story.of_kind("response") if e.title]
    if not done or done[-1].text("status") != "failed" or story.reason == "failed":
        return []
    if is_rate_limit(done[-1]) and _engine_blame(story) == "upstream":
        return []  # said as such
    said = story.last("said")
    if said is not None and said.at > done[-1].at:
        return []
    blame = _engine_blame(story)
    why = done[-1].title.removeprefix("response ")[:300]
    text = f"the agent's last answer, at {seconds(done[-1].at)}, failed: {why}"
    return [find("response_failed", Weight.HARM, text, done[-1], blame=blame)]


def _engine_blame(story: Story) -> Blame:
    return "upstream" if story.engine == "upstream" or story.is_hosted else "node"


def _slow(story: Story) -> list[Finding]:
    turns = [(e, first) for e in story.of_kind("turn") if (first := _first_ms(e)) is not None]
    if not turns:
        return []
    middle = statistics.median_low(first for _, first in turns)
    if middle < (SLOW_MS if len(turns) > 1 else VERY_SLOW_MS):
        return []
    worst = max(turns, key=lambda turn: turn[1])[0]
    many = f"of {len(turns)} answers the middle one came" if len(turns) > 1 else "the only answer came"
    text = f"{many} {seconds(middle / 1000)} after the caller's last word{_where(worst)}"
    blame = _engine_blame(story)
    return [find("slow_answers", Weight.HARM, text, worst, blame=blame)]


def _first_ms(turn: Entry) -> float | None:
    return turn.value("first_played_ms") or turn.value("first_audio_ms")


def _where(turn: Entry) -> str:
    """Say which stage of a turn took longest."""
    before, longest, name = 0.0, 0.0, ""
    for field, what in _STAGES:
        if (moment := turn.value(field)) is not None:
            if moment - before > longest:
                longest, name = moment - before, what
            before = max(before, moment)
    return f"; in the slowest, {seconds(longest / 1000)} went by {name}" if name else ""


def _tools(story: Story) -> list[Finding]:
    calls = list(story.of_kind("tool_call"))
    if not calls or story.reason == "failed":
        return []
    last = calls[-1]
    if story.ended_at - last.at < DUE_S or _answered(story, last):
        return []
    attached = _is_attached(story, last.at)
    missing = "no output came" if attached else "no sideband was attached that could answer it"
    waited = seconds(story.ended_at - last.at)
    text = f"the agent called {last.title[:120]} at {seconds(last.at)}, and {missing} in {waited}"
    return [find("tool_never_answered", Weight.HARM, text, last)]


def _answered(story: Story, call: Entry) -> bool:
    if story.is_hosted:
        sent = mapping(mapping(story.call.get("events")).get("sent"))
        return (number(sent.get("conversation.item.create")) or 0) > 0
    for entry in story.entries:
        if entry.at < call.at or entry is call:
            continue
        if entry.kind == "session" and "function_call_output" in entry.title:
            return True
        # Its own response's end comes right after it; one that begins later goes on without the tool.
        if entry.kind in ("said", "interrupted") and entry.at - call.at > 1:
            return True
    return False


def _is_attached(story: Story, at: float) -> bool:
    attached = 0
    for entry in story.of_kind("sideband"):
        if entry.at > at:
            break
        attached += 1 if entry.title == "attached" else -1
    return attached > 0


def _first_word(story: Story) -> list[Finding]:
    """Nobody heard the agent, and the caller went."""
    if story.reason not in ("remote_hangup", "hangup", "session_limit") or _spoke(story):
        return []
    lasted, end = story.talked_s, story.ending
    if story.reason == "hangup":
        # An app may answer to press keys, to record, or to transfer.
        return []
    heard = story.last("heard")
    asked = (
        next((e for e in story.of_kind("session") if e.title.startswith("response.create")), None) or heard
    )
    if lasted < DUE_S:
        if asked is not None and story.ended_at - asked.at >= DUE_S:
            return [_silent_engine(story, asked)]
        text = f"the caller hung up {seconds(lasted)} after the answer, before the agent's first word"
        return [find("hung_up_before_first_word", Weight.HARM, text, story.answer, end)]
    if asked is not None:
        if story.ended_at - asked.at < DUE_S:
            return []
        return [_silent_engine(story, asked)]
    if any(e.at >= (story.answer.at if story.answer else 0) for e in story.requests("dtmf", "refer")):
        return []
    attached = story.first("sideband", "attached")
    silence = f"nobody spoke in the {seconds(lasted)} after the answer, and the caller hung up"
    if attached is None:
        text = f"{silence}: no sideband was ever attached to ask the agent for a greeting"
        shown = attempts_of(story)
        return [
            find("sideband_never_attached", Weight.HARM, text, story.answer, end, shown[0] if shown else None)
        ]
    text = f"{silence}: the sideband, attached at {seconds(attached.at)}, asked for no response"
    return [find("no_response_asked", Weight.HARM, text, attached, end)]


def _silent_engine(story: Story, asked: Entry) -> Finding:
    waited = seconds(story.ended_at - asked.at)
    text = f"an answer was due at {seconds(asked.at)} ({asked.title[:60]}), and the agent made no sound for {waited}"
    blame = _engine_blame(story)
    return find("agent_never_spoke", Weight.HARM, text, asked, story.ending, blame=blame)


def _spoke(story: Story) -> bool:
    """Whether anything of the agent was heard; only a story that counts it can say no for certain."""
    if any(True for _ in story.of_kind("said", "interrupted", "turn")):
        return True
    totals = story.last("media", "rtp: ")
    played = totals.value("played_ms") if totals is not None else None
    return played is None or played > 0
