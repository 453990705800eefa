"""When an event is tried again (API row W15, design decision 9)."""

import pytest

from offhook.webhooks.schedule import BACKOFF, URGENT, Attempts, DeliveryState, RetryPolicy


def fail_until_it_ends(attempts, *, each=0.0):
    """Return the times at which attempts start, when each lasts `each` seconds and fails."""
    started = []
    while attempts.state is DeliveryState.WAITING:
        now = attempts.due
        started.append(now)
        attempts.begin()
        attempts.fail(now + each)
    return started


def test_a_ringing_phone_is_tried_after_half_a_second_one_two_and_four():
    started = fail_until_it_ends(Attempts(URGENT, now=100.0, draw=lambda: 0.5))
    assert started[:7] == [100.0, 100.5, 101.5, 103.5, 107.5, 111.5, 115.5]


def test_the_delay_counts_from_the_end_of_the_failed_attempt():
    started = fail_until_it_ends(Attempts(URGENT, now=0.0, draw=lambda: 0.5), each=10.0)
    assert started[:3] == [0.0, 10.5, 21.5]


def test_expiry_stops_retries_at_once():
    attempts = Attempts(URGENT, now=0.0, draw=lambda: 0.5)
    attempts.begin()
    assert attempts.fail(1.0)
    attempts.expire()
    assert attempts.state is DeliveryState.EXPIRED


def test_an_attempt_under_way_outlives_expiry_and_counts():
    attempts = Attempts(URGENT, now=0.0, draw=lambda: 0.5)
    attempts.begin()
    attempts.expire()
    assert attempts.state is DeliveryState.ATTEMPTING
    attempts.succeed()
    assert attempts.state is DeliveryState.DELIVERED


def test_a_failure_after_expiry_is_not_retried():
    attempts = Attempts(URGENT, now=0.0, draw=lambda: 0.5)
    attempts.begin()
    attempts.expire()
    assert attempts.fail(1.0) is False
    assert attempts.state is DeliveryState.EXPIRED


def test_other_events_are_tried_for_72_hours_and_no_longer():
    attempts = Attempts(BACKOFF, now=0.0, draw=lambda: 0.5)
    started = fail_until_it_ends(attempts)
    assert started[:5] == [0, 1, 3, 7, 15]
    assert 66 * 3600 < started[-1] <= 72 * 3600
    assert len(started) < 40
    assert attempts.state is DeliveryState.EXHAUSTED


@pytest.mark.parametrize(("draw", "expected"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_chance_moves_a_delay_by_a_fifth(draw, expected):
    assert BACKOFF.delay(1, draw) == pytest.approx(expected)


def test_delays_stay_finite_after_any_number_of_failures():
    assert RetryPolicy(1.0, 60.0, 1e9).delay(10_000, 0.5) == 60.0


def test_a_permanent_failure_ends_it():
    attempts = Attempts(URGENT, now=0.0, draw=lambda: 0.5)
    attempts.begin()
    assert attempts.fail(0.1, permanent=True) is False
    assert attempts.state is DeliveryState.EXHAUSTED
