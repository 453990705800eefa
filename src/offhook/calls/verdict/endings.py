"""How a call ended, or how it stands: always one finding, and more where an end has more than one cause."""

from __future__ import annotations

import re

from .catalogue import Blame
from .record import Finding, Weight, find
from .sdp_hosts import is_out_of_reach, peer_host
from .story import Entry, Story, seconds
from .untold import undecided
from .voice import upstream_refusal

__all__ = ["ending"]

_CONTACT = re.compile(
    r"^(?:Contact|m)[ \t]*:[^<\r\n]{0,80}<?sips?:(?:[^@>\r\n]{1,200}@)?(\[[0-9A-Fa-f:.]+\]|[^:;>\s]+)",
    re.I | re.M,
)
_FIRST_MATCH: tuple[tuple[str, str], ...] = (
    ("node is draining", "node_draining"),
    ("node is full", "node_full"),
    ("calls of yours are not answered", "source_full"),
    ("the engine is not warm", "node_not_ready"),
    ("project is full", "project_full"),
    ("the fallback failed", "fallback_failed"),
    ("the engine was not ready within", "engine_slow"),
    ("no free media port", "node_full"),
    ("media port", "node_full"),
    ("no common sound", "offer_unusable"),
    ("internal error", "internal_error"),
    ("crash", "node_crashed"),
    ("node ended", "node_crashed"),
    ("was killed", "node_crashed"),
    ("node restarted", "node_crashed"),
    ("without warning", "node_crashed"),
)
"Words of a failed call's cause, in the order in which they are looked for."


def ending(story: Story) -> list[Finding]:
    if not story.is_over:
        return [_alive(story)]
    match story.reason:
        case "cancelled":
            return _cancelled(story)
        case "unanswered":
            return _unanswered(story)
        case "rejected":
            reject = next(iter(story.requests("reject")[::-1]), None)
            at = f" at {seconds(reject.at)}" if reject is not None else ""
            said = f" with {story.status}" if story.status else ""
            return [find("rejected", Weight.CAUSE, f"your app rejected the call{said}{at}", reject)]
        case "failed":
            return _failed(story)
        case "media_timeout":
            return [find("media_timeout", Weight.HARM, story.cause or "no RTP came any more", story.ending)]
        case "session_expired":
            return [_expired(story)]
        case "shutdown":
            text = f"the node was shut down at {seconds(story.ended_at)} of the call"
            return [find("node_shut_down", Weight.CAUSE, text, story.ending)]
        case "remote_hangup":
            return [_hung_up(story, "caller_hung_up", "the caller hung up")]
        case "hangup":
            return [_hung_up(story, "app_hung_up", "your app hung up")]
        case "transferred":
            return [_transferred(story)]
        case _:
            return [_unknown(story)]


def _unknown(story: Story) -> Finding:
    return find("unknown", Weight.ENDING, story.cause or "why it ended is not in its story", story.ending)


def _alive(story: Story) -> Finding:
    last = story.entries[-1] if story.entries else None
    match story.call.get("state"):
        case "ringing":
            return find(
                "ringing", Weight.ENDING, "the phone rings; your app has not decided yet", story.invite
            )
        case "accepted" | "answered":
            text = "accepted; the phone is about to be answered, or its ACK is awaited"
            return find("connecting", Weight.ENDING, text, story.accepted)
        case "active":
            return find("in_progress", Weight.ENDING, "the call goes on, and nothing is wrong with it", last)
        case _:
            return _unknown(story)


def _hung_up(story: Story, code: str, who: str) -> Finding:
    after = f" after {seconds(story.talked_s)}" if story.answer is not None else ""
    before = "" if story.was_answered else " before it was answered"
    bye = story.sip("BYE", incoming=code == "caller_hung_up")
    text = f"a normal end: {who}{after}{before}"
    return find(code, Weight.ENDING, text, bye or story.ending)


def _transferred(story: Story) -> Finding:
    steps = [e for e in story.of_kind("call") if e.text("status").startswith("completed")]
    last = steps[-1] if steps else None
    where = f" to {last.text('target_uri')[:200]}" if last is not None else ""
    guess = last is not None and last.text("status") == "completed_unconfirmed"
    text = f"the caller was transferred{where}" + (
        "; the trunk took the REFER and hung up, which is how most of them confirm it" if guess else ""
    )
    return find("transferred", Weight.ENDING, text, last or story.ending)


def _cancelled(story: Story) -> list[Finding]:
    cancel = story.cancel
    at = cancel.at if cancel is not None else story.ended_at
    if cancel is not None and (
        "completed elsewhere" in cancel.message or "answered elsewhere" in cancel.message
    ):
        text = f"another of the trunk's destinations answered at {seconds(at)}"
        return [find("answered_elsewhere", Weight.CAUSE, text, cancel)]
    accepted = story.accepted
    if accepted is not None and accepted.at <= at:
        waited = at - accepted.at
        if waited < 2:
            text = f"the caller hung up at {seconds(at)}, {seconds(waited)} after the accept and before the answer"
            return [find("caller_gave_up", Weight.CAUSE, text, accepted, cancel)]
        text = (
            f"accepted at {seconds(accepted.at)}, the engine was not ready {seconds(waited)} later; "
            f"the carrier cancelled at {seconds(at)}"
        )
        blame: Blame = "upstream" if story.engine == "upstream" else "node"
        return [find("engine_slow", Weight.CAUSE, text, accepted, cancel, blame=blame)]
    why = undecided(story, cancel, at, Weight.CAUSE, "the carrier cancelled")
    if why:
        return why
    text = f"the caller hung up after {seconds(at)} of ringing"
    return [find("caller_gave_up", Weight.CAUSE, text, story.invite, cancel)]


def _unanswered(story: Story) -> list[Finding]:
    end, at = story.ending, story.ended_at
    status = f" with {story.status}" if story.status else ""
    if "nobody is subscribed" in story.cause:
        text = f"no webhook endpoint of the project wants realtime.call.incoming, so the call was refused{status}"
        return [find("nobody_subscribed", Weight.CAUSE, text, end)]
    why = undecided(story, end, at, Weight.CAUSE, f"the ringing was ended{status}")
    if why:
        return why
    return [find("unknown", Weight.CAUSE, f"nobody accepted: {story.cause}", end)]


def _failed(story: Story) -> list[Finding]:
    cause, end = story.cause, story.ending
    at = f" at {seconds(story.ended_at)}" if end is not None else ""
    if story.status == 488:
        return [_no_offer(story)]
    if "no ACK" in cause:
        return [_no_ack(story)]
    if "no upstream took the call" in cause:
        code = upstream_refusal(cause)
        return [find(code, Weight.CAUSE, f"{cause[:400]}", _upstream_entry(story), end)]
    if "the engine failed: " in cause:
        why = cause.partition("the engine failed: ")[2][:300]
        if story.engine == "upstream":
            code = "upstream_lost" if "lost" in why else upstream_refusal(why)
            return [
                find(code, Weight.CAUSE, f"the upstream was gone{at}: {why}", _upstream_entry(story), end)
            ]
        return [
            find("engine_failed", Weight.CAUSE, f"the engine failed{at}: {why}", story.last("error"), end)
        ]
    for words, code in _FIRST_MATCH:
        if words in cause:
            said = f"refused with {story.status}: {cause}" if story.status else f"{cause}"
            found = [find(code, Weight.CAUSE, said[:400], story.accepted, end)]
            if code == "fallback_failed":
                found += undecided(story, end, story.ended_at, Weight.CAUSE, "the fallback was tried")
            return found
    if story.was_answered and story.last("route", "could not send") is not None:
        tried = story.last("route", "could not send")
        assert tried is not None
        return [find("dialog_lost", Weight.CAUSE, f"{tried.title[:400]}; the call ended{at}", tried, end)]
    if story.was_answered and re.search(r"\b(481|408|no answer)\b", cause):
        return [find("dialog_lost", Weight.CAUSE, f"the other end no longer knew the call{at}: {cause}", end)]
    if story.accepted is not None and not story.was_answered:
        return [
            find(
                "engine_failed",
                Weight.CAUSE,
                f"accepted, but could not be served{at}: {cause}",
                story.accepted,
                end,
            )
        ]
    return [find("unknown", Weight.CAUSE, cause or "it failed, and its story does not say why", end)]


def _upstream_entry(story: Story) -> Entry | None:
    return story.last("upstream", "lost: ") or story.last("upstream") or story.last("error")


def _no_offer(story: Story) -> Finding:
    cause = story.cause
    if "no common codec" in cause:
        code = "no_common_codec"
    elif "SRTP is required" in cause:
        code = "srtp_required"
    elif "SRTP" in cause or "crypto" in cause:
        code = "srtp_refused"
    else:
        code = "offer_unusable"
    return find(
        code, Weight.CAUSE, f"the INVITE's offer was refused with 488: {cause}", story.invite, story.ending
    )


def _no_ack(story: Story) -> Finding:
    answer = story.answer
    sent = [e for e in story.of_kind("sip") if not e.came_in and e.sip_status == 200 and e.method == "INVITE"]
    many = f"sent {len(sent)} times" if len(sent) > 1 else "sent once"
    peer = answer.text("remote") if answer is not None else "the peer"
    text = f"our 200, {many} to {peer}, was never acknowledged ({story.cause})"
    found = _CONTACT.search(answer.message) if answer is not None else None
    if found is not None and is_out_of_reach(found[1].strip("[]"), peer_host(peer)):
        text += f"; its Contact names {found[1]}, which {peer_host(peer)} cannot reach"
        return find("contact_unreachable", Weight.CAUSE, text, answer, story.ending)
    return find("no_ack", Weight.CAUSE, text, answer, story.ending)


def _expired(story: Story) -> Finding:
    if "time limit" in story.cause:
        text = f"the session reached its time limit after {seconds(story.talked_s)}"
        return find("session_limit", Weight.ENDING, text, story.ending)
    noted = story.last("call", "session timer")
    text = f"the session timer ran out at {seconds(story.ended_at)}: {story.cause or 'no refresh came'}"
    return find("session_timer_expired", Weight.CAUSE, text, noted, story.ending)
