"""How a call ended, or how it stands: always one finding, and more where an end has more than one cause."""

from __future__ import annotations

import re

from .catalogue import Blame
from .farewell import cut_off, is_taken_elsewhere, unheard_bye
from .record import Finding, Weight, find
from .sdp_hosts import is_out_of_reach, peer_host
from .story import Story, seconds
from .untold import undecided
from .upstreams import upstream_end, upstream_entry

__all__ = ["ending"]

_CONTACT = re.compile(
    r"^(?:Contact|m)[ \t]*:[^<\r\n]{0,80}<?sips?:(?:[^@>\r\n]{1,200}@)?(\[[0-9A-Fa-f:.]+\]|[^:;>\s]+)",
    re.I | re.M,
)


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
            return [cut_off(story) or _hung_up(story, "caller_hung_up", "the caller hung up")]
        case "hangup":
            return [_hung_up(story, "app_hung_up", "your app hung up"), *unheard_bye(story, Weight.HARM)]
        case "transferred":
            return [_transferred(story), *unheard_bye(story, Weight.NOTE)]
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
    if cancel is not None and is_taken_elsewhere(cancel):
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
    why = undecided(story, end, at, Weight.CAUSE, f"the ringing was ended{status}")
    if why:
        return why
    return [find("unknown", Weight.CAUSE, f"nobody accepted: {story.cause}", end)]


def _failed(story: Story) -> list[Finding]:
    cause, fault, end = story.cause, story.fault, story.ending
    at = f" at {seconds(story.ended_at)}" if end is not None else ""
    said = (f"refused with {story.status}: {cause}" if story.status else cause)[:400]
    match fault:
        case (
            "node_draining" | "node_full" | "source_full" | "project_full" | "node_not_ready" | "engine_full"
        ):
            return [find(fault, Weight.CAUSE, said, story.accepted, end)]
        case "no_common_codec" | "srtp_required" | "srtp_refused" | "offer_unusable":
            return [_no_offer(story)]
        case "engine_slow" | "node_crashed" | "internal_error":
            return [find(fault, Weight.CAUSE, said, story.accepted, end)]
        case "fallback_failed":
            found = find(fault, Weight.CAUSE, said, end)
            return [found, *undecided(story, end, story.ended_at, Weight.CAUSE, "the fallback was tried")]
        case "no_ack":
            return [_no_ack(story)]
        case "dialog_lost":
            tried = story.last("route", "could not send")
            text = f"the other end no longer knew the call, or could not be reached{at}: {cause}"
            return [find(fault, Weight.CAUSE, text[:400], tried, end)]
        case "upstream_unavailable":
            return [find(upstream_end(story), Weight.CAUSE, cause[:400], upstream_entry(story), end)]
        case "engine_failed" if story.engine == "upstream":
            text = f"the upstream was gone{at}: {_why(cause)}"
            return [find(upstream_end(story), Weight.CAUSE, text, upstream_entry(story), end)]
        case "engine_failed":
            text = f"the engine failed{at}: {_why(cause)}"
            return [find(fault, Weight.CAUSE, text, story.last("error"), end)]
        case "engine_unavailable":
            text = f"accepted, but could not be served{at}: {cause}"[:400]
            return [find("engine_failed", Weight.CAUSE, text, story.accepted, end)]
        case _:
            return [find("unknown", Weight.CAUSE, cause or "it failed, and its story does not say why", end)]


def _why(cause: str) -> str:
    return cause.removeprefix("the engine failed: ")[:300]


def _no_offer(story: Story) -> Finding:
    what = f"the INVITE's offer was refused with {story.status}" if story.status else "the call was ended"
    text = f"{what}: {story.cause}"[:400]
    return find(story.fault, Weight.CAUSE, text, story.invite, story.ending)


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
    if story.fault not in ("session_limit", "session_timer_expired"):
        return _unknown(story)
    if story.fault == "session_limit":
        text = f"the session reached its time limit after {seconds(story.talked_s)}"
        return find("session_limit", Weight.ENDING, text, story.ending)
    noted = story.last("call", "session timer")
    text = f"the session timer ran out at {seconds(story.ended_at)}: {story.cause or 'no refresh came'}"
    return find("session_timer_expired", Weight.CAUSE, text, noted, story.ending)
