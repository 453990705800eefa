"""What calls count is read off their timelines: times of the INVITE, ends, turns, and a stream's packets."""

from __future__ import annotations

from typing import Any

import pytest

from offhook.calls.journal import NoJournal
from offhook.calls.measured import MAX_OPEN, MeasuredJournal, MediaCounts
from offhook.calls.timeline import TimelineEntry
from offhook.media.stats import MediaStats
from offhook.metrics import Histogram, Metrics

CALL = "rtc_u0_1"


class Story:
    """A call's timeline, told to a measured journal."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.below = Below()
        self.journal = MeasuredJournal(self.below, self.metrics)
        self.number = 0

    def tell(self, at: float, kind: str, title: str, call_id: str = CALL, **details: Any) -> None:
        self.journal.entry(call_id, self.number, at, TimelineEntry(at, kind, title, details))
        self.number += 1

    def sip(self, at: float, direction: str, title: str, method: str = "INVITE", call_id: str = CALL) -> None:
        message = f"{title}\r\nVia: x\r\nCSeq: 1 {method}\r\n\r\n"
        self.tell(at, "sip", title, call_id, direction=direction, message=message)

    def histogram(self, name: str, *labels: str) -> Histogram | None:
        return next(one.histograms.get(labels) for one in self.metrics.counted() if one.name == name)

    def sum(self, name: str, *labels: str) -> float | None:
        found = self.histogram(name, *labels)
        return None if found is None else round(found.sum, 6)

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        return next(one.values for one in self.metrics.counted() if one.name == name)


class Below(NoJournal):
    def __init__(self) -> None:
        self.told: list[str] = []

    def entry(self, call_id: str, number: int, at: float, entry: TimelineEntry) -> None:
        self.told.append(entry.title)


def test_the_times_of_an_answered_call() -> None:
    story = Story()
    story.sip(10.0, "in", "INVITE sip:proj@h SIP/2.0")
    story.sip(10.001, "out", "SIP/2.0 100 Trying")
    story.sip(10.004, "out", "SIP/2.0 180 Ringing")
    story.tell(10.5, "call", "accepted", model="m")
    story.sip(10.75, "out", "SIP/2.0 200 OK")
    story.sip(11.25, "out", "SIP/2.0 200 OK")  # again, until the ACK
    story.tell(70.75, "call", "ended: the caller hung up", result="success", reason="remote_hangup")
    assert story.sum("offhook_sip_invite_response_seconds", "100") == 0.001
    assert story.sum("offhook_sip_invite_response_seconds", "180") == 0.004
    assert story.sum("offhook_sip_invite_response_seconds", "200") == 0.75
    assert story.sum("offhook_call_decision_seconds") == 0.5
    assert story.sum("offhook_call_setup_seconds") == 0.25
    assert story.sum("offhook_call_duration_seconds") == 60
    assert story.values("offhook_calls_ended") == {("remote_hangup", "success", ""): 1}
    assert len(story.below.told) == 7


def test_a_200_to_cancel_is_no_answer() -> None:
    story = Story()
    story.sip(10.0, "in", "INVITE sip:proj@h SIP/2.0")
    story.sip(12.0, "in", "CANCEL sip:proj@h SIP/2.0", "CANCEL")
    story.sip(12.0, "out", "SIP/2.0 200 OK", "CANCEL")
    story.tell(12.0, "call", "ended", result="client_error", reason="cancelled", sip_status=487)
    assert story.sum("offhook_sip_invite_response_seconds", "200") is None
    assert story.sum("offhook_call_duration_seconds") is None
    assert story.values("offhook_calls_ended") == {("cancelled", "client_error", "487"): 1}


def test_an_invite_that_comes_again_after_the_end_begins_nothing() -> None:
    story = Story()
    story.sip(10.0, "in", "INVITE sip:proj@h SIP/2.0")
    story.sip(10.1, "out", "SIP/2.0 100 Trying")
    story.sip(10.1, "out", "SIP/2.0 503 Service Unavailable")
    story.tell(10.1, "call", "ended", result="server_error", reason="failed", sip_status=503)
    story.sip(10.5, "in", "INVITE sip:proj@h SIP/2.0")
    story.sip(10.5, "out", "SIP/2.0 100 Trying")
    found = story.histogram("offhook_sip_invite_response_seconds", "100")
    assert found is not None
    assert sum(found.counts) == 1


@pytest.mark.parametrize(("status", "label"), [(486, "486"), (499, "4xx"), (699, "6xx"), (None, "")])
def test_statuses_that_an_app_makes_up_share_a_series(status: int | None, label: str) -> None:
    story = Story()
    story.tell(1.0, "call", "ended", result="success", reason="rejected", sip_status=status)
    assert story.values("offhook_calls_ended") == {("rejected", "success", label): 1}


def test_turns_by_stage() -> None:
    story = Story()
    story.tell(
        1.0, "turn", "answered 900 ms after", response_id="r", committed_ms=500.0, first_played_ms=900.0
    )
    assert story.sum("offhook_turn_seconds", "committed") == 0.5
    assert story.sum("offhook_turn_seconds", "first_played") == 0.9
    assert story.sum("offhook_turn_seconds", "transcript") is None


def test_refers_and_quality() -> None:
    story = Story()
    update = {
        "refer": 1,
        "target_uri": "tel:+1",
        "status": "failed",
        "sip_status": 486,
        "reason": "Busy Here",
    }
    story.tell(1.0, "call", "transfer 1 to tel:+1: failed", **update)
    story.tell(2.0, "media", "rtp: ...", quality={"inbound": {"mos": 4.1}, "outbound": {"mos": None}})
    assert story.values("offhook_refer_updates") == {("failed",): 1}
    assert story.values("offhook_calls_ended") == {}
    assert story.sum("offhook_call_mos", "in") == 4.1
    assert story.sum("offhook_call_mos", "out") is None


def test_calls_that_never_end_are_forgotten_in_the_end() -> None:
    story = Story()
    for number in range(MAX_OPEN + 5):
        story.number = 0
        story.sip(float(number), "in", "INVITE sip:proj@h SIP/2.0", call_id=f"rtc_{number}")
    assert len(story.journal._open) == MAX_OPEN


def stats(**counts: Any) -> MediaStats:
    given = dict.fromkeys(MediaStats.__slots__, 0) | {"jitter_ms": 2.0, "remote_lost": None} | counts
    return MediaStats(**given)


def test_packets_are_added_up_from_looks() -> None:
    metrics = Metrics()
    counts = MediaCounts(metrics)
    counts.add(stats(packets_in=250, packets_out=250, lost=2, foreign=1))
    counts.add(stats(packets_in=500, packets_out=500, lost=1, remote_lost=4))  # one came late after all
    counts.add(stats(packets_in=500, packets_out=510, lost=3, remote_lost=4))
    values = {one.name: one.values for one in metrics.counted()}
    assert values["offhook_rtp_packets"] == {("in",): 500, ("out",): 510}
    assert values["offhook_rtp_lost_packets"] == {("in",): 3, ("out",): 4}
    assert values["offhook_rtp_dropped_packets"] == {("foreign",): 1}
    jitter = next(one.histograms for one in metrics.counted() if one.name == "offhook_rtp_jitter_seconds")
    assert sum(jitter[()].counts) == 2  # nothing came before the last look
