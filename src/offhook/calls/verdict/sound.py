"""What the sound was like, each way, and why there was none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .record import Finding, Weight, find
from .sdp_hosts import is_out_of_reach, media_host, peer_host
from .story import Entry, Story, mapping, number, seconds

__all__ = ["sound"]

DUE_S = 3.0
"So long after the answer, sound should have come."
ENOUGH = 150
"Packets, three seconds, before a share of them says anything."
HIGH_LOSS = 5.0
"Percent. The E-model rates 5 % at 3.6; conversation gets hard."
HIGH_JITTER_MS = 60.0
NOTHING_ARRIVES = 90.0


def sound(story: Story) -> list[Finding]:
    """Return what was wrong with the sound of a call that was answered."""
    if not story.was_answered or story.is_hosted:
        return []
    totals = story.last("media", "rtp: ")
    if totals is not None:
        counts, quality = totals.details, mapping(totals.details.get("quality"))
    else:
        counts, quality = {}, mapping(story.call.get("media"))
    inbound, outbound = mapping(quality.get("inbound")), mapping(quality.get("outbound"))
    weight = Weight.CAUSE if story.reason == "media_timeout" else Weight.HARM
    found = list(_absent(story, totals, counts, inbound, quality, weight))
    found += _outbound(outbound, counts, totals)
    if not found:
        found += _poor(inbound, totals)
    found += _overloaded(counts, totals)
    return found


def _absent(
    story: Story,
    totals: Entry | None,
    counts: Mapping[str, Any],
    inbound: Mapping[str, Any],
    quality: Mapping[str, Any],
    weight: Weight,
) -> list[Finding]:
    """Why nothing, or nothing more, came from the caller."""
    packets = number(inbound.get("packets"))
    if packets is None:
        packets = number(counts.get("packets_in"))
    timed_out = next((e for e in story.of_kind("media") if e.text("event") == "media_timeout"), None)
    if packets is None:
        return []
    if packets > 0:
        if timed_out is None:
            return []
        text = f"{timed_out.title}; it was no hold, and no BYE came"
        return [find("audio_stopped", weight, text, timed_out, story.ending)]
    if totals is None and any(e.text("event") == "receiving" for e in story.of_kind("media")):
        return []  # a crash left what was saved at the answer
    if timed_out is None and (story.talked_s < DUE_S or _may_be_silent(story, quality)):
        return []
    lasted = f"no sound came from the caller in the {seconds(story.talked_s)} after the answer"
    return [_why_silent(story, lasted, counts, totals or timed_out, weight)]


def _may_be_silent(story: Story, quality: Mapping[str, Any]) -> bool:
    if quality.get("held") is True or quality.get("direction") in ("sendonly", "inactive"):
        return True
    return story.first("sdp", "the caller holds the call") is not None


def _why_silent(
    story: Story, lasted: str, counts: Mapping[str, Any], shown: Entry | None, weight: Weight
) -> Finding:
    refused = next((e for e in story.of_kind("media") if e.text("event") == "source_refused"), None)
    foreign = number(counts.get("foreign")) or 0
    if refused is not None or foreign > 0:
        said = refused.title if refused is not None else "another source sent"
        text = f"{lasted}, but {foreign:.0f} packets from elsewhere did ({said})"
        return find("audio_from_elsewhere", weight, text, refused, shown)
    if (failed := number(counts.get("unauthentic")) or 0) > 0:
        text = f"{lasted} that could be decrypted: {failed:.0f} packets failed authentication"
        return find("srtp_keys_wrong", weight, text, shown)
    if (garbage := number(counts.get("malformed")) or 0) >= 25:
        text = f"{lasted} that could be used: {garbage:.0f} packets were no RTP, or of a payload type not agreed on"
        return find("audio_unusable", weight, text, shown, story.answer)
    ours = media_host(story.answer.message) if story.answer is not None else ""
    peer = peer_host(story.answer.text("remote")) if story.answer is not None else ""
    if is_out_of_reach(ours, peer):
        text = f"{lasted}: our SDP names {ours}, which {peer} cannot reach"
        return find("media_address_private", weight, text, story.answer, shown)
    theirs = media_host(story.invite.message) if story.invite is not None else ""
    if is_out_of_reach(theirs, peer):
        text = (
            f"{lasted}: the caller's SDP names {theirs}, a private address, while its SIP comes from {peer}, "
            "and no RTP came from there either"
        )
        return find("caller_behind_nat", weight, text, story.invite, shown)
    text = f"{lasted}: not one RTP packet reached us" + (f" at {ours}" if ours else "")
    return find("no_audio_received", weight, text, story.answer, shown)


def _outbound(outbound: Mapping[str, Any], counts: Mapping[str, Any], totals: Entry | None) -> list[Finding]:
    loss, packets = number(outbound.get("loss_percent")), number(outbound.get("packets")) or 0
    if loss is None or packets < ENOUGH or loss < HIGH_LOSS:
        return []
    remote = counts.get("remote")
    where = f" to {remote}" if isinstance(remote, str) and remote else ""
    said = f"the caller's side reports by RTCP that {loss:.0f} % of our sound{where} did not arrive"
    code = "audio_not_arriving" if loss >= NOTHING_ARRIVES else "loss_to_caller"
    return [find(code, Weight.HARM, said, totals)]


def _poor(inbound: Mapping[str, Any], totals: Entry | None) -> list[Finding]:
    packets = number(inbound.get("packets")) or 0
    if packets < ENOUGH:
        return []
    loss, jitter = number(inbound.get("loss_percent")) or 0.0, number(inbound.get("jitter_ms")) or 0.0
    rated = number(inbound.get("mos"))
    mos = f" (MOS {rated})" if rated is not None else ""
    if loss >= HIGH_LOSS:
        text = f"{loss:.0f} % of the caller's sound was lost or came too late{mos}; jitter {jitter:.0f} ms"
        return [find("loss_from_caller", Weight.HARM, text, totals)]
    if jitter >= HIGH_JITTER_MS:
        return [
            find(
                "jitter", Weight.HARM, f"the caller's sound came with {jitter:.0f} ms of jitter{mos}", totals
            )
        ]
    return []


def _overloaded(counts: Mapping[str, Any], totals: Entry | None) -> list[Finding]:
    skipped, sent = number(counts.get("skipped_ticks")) or 0, number(counts.get("packets_out")) or 0
    if sent < ENOUGH or skipped < max(50, sent * 0.05):
        return []
    text = f"{skipped * 20 / 1000:.1f} s of our sound were not sent because this node was held up"
    return [find("node_overloaded", Weight.HARM, text, totals)]
