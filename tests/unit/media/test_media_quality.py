"""The E-model's numbers, from G.107 and G.113, and how counts become them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.media.negotiate import MediaPlan
from offhook.media.quality import mean_opinion, r_factor, received, sent
from offhook.media.stream import MediaStream

PLAN = MediaPlan("PCMU", 0, 101, ("192.0.2.1", 4000), ("192.0.2.1", 4001))
NOTHING = MediaStream(PLAN, ssrc=1, sequence=0, timestamp=0, cname="x", now=0.0, wall_offset=0.0).stats()


@pytest.mark.parametrize(
    ("r", "score"), [(0, 1.0), (50, 2.575), (60, 3.1), (70, 3.597), (80, 4.024), (90, 4.339), (93.2, 4.409)]
)
def test_r_and_its_score(r, score):
    """G.107 annex B: the values of its formula at the borders of its categories."""
    assert mean_opinion(r) == pytest.approx(score, abs=0.01)


@pytest.mark.parametrize(
    ("loss", "delay", "r"),
    [
        (0, 0, 93.2),
        (0, 177.3, 93.2 - 4.255),
        (0, 400, 93.2 - 9.6 - 24.497),
        (1, 0, 93.2 - 95 / 26.1),
        (25.1, 0, 93.2 - 47.5),
        (100, 2000, 0),
    ],
)
def test_what_takes_from_r(loss, delay, r):
    assert r_factor(loss, delay) == pytest.approx(r, abs=0.01)


@given(st.floats(0, 100), st.floats(0, 5000))
def test_a_score_lies_within_its_scale_and_falls_with_loss_and_delay(loss, delay):
    score = mean_opinion(r_factor(loss, delay))
    assert 1 <= score <= 4.5
    assert mean_opinion(r_factor(min(100, loss + 1), delay)) <= score + 1e-9
    assert mean_opinion(r_factor(loss, delay + 10)) <= score + 1e-9


def test_nothing_heard_has_no_score():
    way = received(NOTHING)
    assert (way.packets, way.loss_percent, way.mos) == (0, None, None)


def test_what_came_too_late_is_as_bad_as_what_did_not_come():
    lost = received(dataclasses.replace(NOTHING, packets_in=90, lost=10))
    late = received(dataclasses.replace(NOTHING, packets_in=100, late=10))
    assert lost.loss_percent == late.loss_percent == 10
    assert lost.mos == late.mos < 3.5
    assert (lost.lost, late.lost) == (10, 0)


def test_an_interval_counts_from_the_one_before():
    before = dataclasses.replace(NOTHING, packets_in=500, lost=100, late=3)
    way = received(dataclasses.replace(NOTHING, packets_in=700, lost=100, late=3), before)
    assert (way.packets, way.lost, way.loss_percent) == (200, 0, 0)


def test_without_reports_nothing_is_known_of_the_way_out():
    way = sent(dataclasses.replace(NOTHING, packets_out=100))
    assert (way.packets, way.lost, way.mos) == (100, None, None)


def test_a_report_rates_the_way_out_at_the_time_it_was_made():
    stats = dataclasses.replace(
        NOTHING, packets_out=400, packets_reported=200, remote_lost=20, remote_jitter_ms=4.0, rtt_ms=80.0
    )
    way = sent(stats)
    assert (way.lost, way.loss_percent, way.jitter_ms) == (20, 10, 4)
    assert way.mos == pytest.approx(mean_opinion(r_factor(10, 80 / 2 + 20 + 20)), abs=0.01)
    assert sent(dataclasses.replace(stats, remote_lost=-3)).lost == 0
