"""
What calls count, read off the story that they tell their journal anyway. Pure.

A call's hot paths pay nothing for metrics: all of it is on the timeline, one entry at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from offhook.media.stats import MediaStats
from offhook.metrics import Metrics
from offhook.sip.status import REASONS

from .journal import CallTimes, Journal
from .timeline import TimelineEntry

__all__ = ["MeasuredJournal", "MediaCounts"]

MAX_OPEN = 10_000
"Calls that have begun and not ended; the oldest is forgotten beyond, and only its times are not counted."

_BEGINNING = 3
"A call's INVITE is among its first entries; what comes later is a repeat."

_STAGES = ("committed", "transcript", "first_text", "first_audio", "first_played")
_RESPONSES = {"SIP/2.0 100": "100", "SIP/2.0 180": "180", "SIP/2.0 200": "200"}


class _Moments:
    """When things happened to one call, on the monotonic clock."""

    __slots__ = ("accepted_at", "answered_at", "invited_at", "seen")

    def __init__(self, invited_at: float) -> None:
        self.invited_at = invited_at
        self.accepted_at: float | None = None
        self.answered_at: float | None = None
        self.seen: set[str] = set()


class MeasuredJournal:
    """Hands everything on to the journal below, and counts what goes by."""

    def __init__(self, journal: Journal, metrics: Metrics) -> None:
        self._journal = journal
        self._metrics = metrics
        self._open: dict[str, _Moments] = {}
        self._count_by_kind: dict[str, Callable[[str, TimelineEntry], None]] = {
            "sip": self._count_message,
            "call": self._count_change,
            "turn": self._count_turn,
            "media": self._count_media,
        }

    def save(self, described: Mapping[str, Any], times: CallTimes) -> None:
        self._journal.save(described, times)

    def refer(self, described: Mapping[str, Any]) -> None:
        self._journal.refer(described)

    def entry(self, call_id: str, number: int, at: float, entry: TimelineEntry) -> None:
        self._journal.entry(call_id, number, at, entry)
        if number < _BEGINNING and entry.kind == "sip" and call_id not in self._open:
            self._begin(call_id, entry)
        count = self._count_by_kind.get(entry.kind)
        if count is not None:
            count(call_id, entry)

    def dialog(self, call_id: str, snapshot: Mapping[str, Any] | None) -> None:
        self._journal.dialog(call_id, snapshot)

    def _begin(self, call_id: str, entry: TimelineEntry) -> None:
        if entry.details.get("direction") == "in" and entry.title.startswith("INVITE "):
            if len(self._open) >= MAX_OPEN:
                del self._open[next(iter(self._open))]
            self._open[call_id] = _Moments(entry.at)

    def _count_message(self, call_id: str, entry: TimelineEntry) -> None:
        response = _RESPONSES.get(entry.title[:11])
        moments = self._open.get(call_id)
        if response is None or moments is None or response in moments.seen:
            return
        if entry.details.get("direction") != "out" or not _answers_invite(entry.details["message"]):
            return
        moments.seen.add(response)
        self._metrics.observe("offhook_sip_invite_response_seconds", entry.at - moments.invited_at, response)
        if response == "200":
            moments.answered_at = entry.at
            if moments.accepted_at is not None:
                self._metrics.observe("offhook_call_setup_seconds", entry.at - moments.accepted_at)

    def _count_change(self, call_id: str, entry: TimelineEntry) -> None:
        details = entry.details
        if "refer" in details and "target_uri" in details:
            self._metrics.count("offhook_refer_updates", str(details.get("status")))
        elif "result" in details and "reason" in details:
            self._count_end(call_id, entry)
        elif entry.title == "accepted":
            moments = self._open.get(call_id)
            if moments is not None and moments.accepted_at is None:
                moments.accepted_at = entry.at
                self._metrics.observe("offhook_call_decision_seconds", entry.at - moments.invited_at)

    def _count_end(self, call_id: str, entry: TimelineEntry) -> None:
        moments = self._open.pop(call_id, None)
        details = entry.details
        self._metrics.count(
            "offhook_calls_ended",
            str(details["reason"]),
            str(details["result"]),
            _known_status(details.get("sip_status")),
        )
        if moments is not None and moments.answered_at is not None:
            self._metrics.observe("offhook_call_duration_seconds", entry.at - moments.answered_at)

    def _count_turn(self, call_id: str, entry: TimelineEntry) -> None:
        for stage in _STAGES:
            took_ms = entry.details.get(f"{stage}_ms")
            if took_ms is not None:
                self._metrics.observe("offhook_turn_seconds", took_ms / 1000, stage)

    def _count_media(self, call_id: str, entry: TimelineEntry) -> None:
        quality = entry.details.get("quality")
        if quality is None:
            return
        for direction, key in (("in", "inbound"), ("out", "outbound")):
            mos = (quality.get(key) or {}).get("mos")
            if mos is not None:
                self._metrics.observe("offhook_call_mos", mos, direction)


class MediaCounts:
    """
    Adds up one stream's counts: tell it what `MediaPort.stats` says every few seconds, and at the end.

    Nothing is counted per packet.
    """

    __slots__ = ("_counted", "_metrics")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._counted = [0] * len(_STREAM_COUNTS)

    def add(self, stats: MediaStats) -> None:
        counted = self._counted
        if stats.packets_in > counted[0]:
            self._metrics.observe("offhook_rtp_jitter_seconds", stats.jitter_ms / 1000)
        for index, now in enumerate(_read_counts(stats)):
            # Most are 0. A late packet, or a peer's report, takes losses back.
            if now and (more := now - counted[index]) > 0:
                counted[index] = now
                name, _, *labels = _STREAM_COUNTS[index]
                self._metrics.count(name, *labels, by=more)


_STREAM_COUNTS = (
    ("offhook_rtp_packets", "packets_in", "in"),
    ("offhook_rtp_packets", "packets_out", "out"),
    ("offhook_rtp_lost_packets", "lost", "in"),
    ("offhook_rtp_lost_packets", "remote_lost", "out"),
    ("offhook_rtp_late_packets", "late"),
    ("offhook_rtp_dropped_packets", "foreign", "foreign"),
    ("offhook_rtp_dropped_packets", "malformed", "malformed"),
    ("offhook_rtp_dropped_packets", "unauthentic", "unauthentic"),
    ("offhook_rtp_dropped_packets", "replayed", "replayed"),
    ("offhook_rtp_dropped_packets", "duplicates", "duplicate"),
)
"Metric, field of `MediaStats`, label."
_read_counts = attrgetter(*(field for _, field, *_ in _STREAM_COUNTS))


def _answers_invite(message: str) -> bool:
    at = message.find("\r\nCSeq:")
    if at < 0:
        at = message.lower().find("\r\ncseq:")
    return at >= 0 and message[at + 2 : at + 60].partition("\r\n")[0].rstrip().endswith(" INVITE")


def _known_status(status: object) -> str:
    """An app may reject with any status there is: those without a name of their own share one."""
    if not isinstance(status, int):
        return ""
    return str(status) if status in REASONS else f"{status // 100}xx"
