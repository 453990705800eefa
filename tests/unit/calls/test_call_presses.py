"""Digits in INFO, and presses that are told twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.calls.presses import InfoError, Presses, parse_info


@pytest.mark.parametrize(
    ("body", "digit", "duration"),
    [
        (b"Signal=5\r\nDuration=160\r\n", "5", 160),
        (b"Signal= 5\r\nDuration= 160\r\n", "5", 160),
        (b"signal=*\nduration=100", "*", 100),
        (b"Duration=100\r\nSignal=#", "#", 100),
        (b"Signal: 7\r\nDuration: 90\r\n", "7", 90),
        (b"Signal=10\r\n", "*", 0),
        (b"Signal=11\r\n", "#", 0),
        (b"Signal=12\r\n", "A", 0),
        (b"Signal=d\r\n", "D", 0),
        (b'Signal="4"\r\n', "4", 0),
        (b"Signal=16\r\n", None, 0),
        (b"Signal=hf\r\n", None, 0),
        (b"3", "3", 0),
        (b" #\r\n", "#", 0),
        (b"Signal=1\r\nSignal=2\r\n", "1", 0),
        (b"Signal=1\r\nDuration=lots\r\n", "1", 0),
        (b"Signal=1\r\nDuration=999999\r\n", "1", 60_000),
    ],
)
def test_what_peers_send(body, digit, duration):
    assert parse_info(body) == (digit, duration)


@pytest.mark.parametrize(
    "body", [b"", b"\r\n", b"Duration=1", b"Signal=", b"Signal=55", b"x", b"Signal=\xb2"]
)
def test_what_says_no_digit(body):
    with pytest.raises(InfoError):
        parse_info(body)


@given(st.binary(max_size=200))
def test_nothing_else_is_raised(body):
    try:
        digit, duration = parse_info(body)
    except InfoError:
        return
    assert digit is None or digit in "0123456789*#ABCD"
    assert 0 <= duration <= 60_000


def heard(*reports):
    presses = Presses()
    return "".join(digit for digit, way, at in reports if presses.is_new(digit, way, at))


def test_one_way_alone_is_never_joined():
    assert heard(("5", "rtp", 0), ("5", "rtp", 0.2), ("5", "rtp", 0.4)) == "555"
    assert heard(("5", "info", 0), ("5", "info", 0.2)) == "55"


def test_both_ways_are_joined_in_order_whichever_is_first():
    assert heard(("5", "rtp", 0), ("5", "info", 0.1), ("5", "info", 0.4), ("5", "rtp", 0.5)) == "55"


def test_a_quick_run_by_one_way_and_then_by_the_other():
    run = [(digit, "rtp", 0.2 * at) for at, digit in enumerate("1223")]
    told = [(digit, "info", 1 + 0.2 * at) for at, digit in enumerate("1223")]
    assert heard(*run, *told) == "1223"


def test_other_keys_and_later_ones_are_presses_of_their_own():
    assert heard(("5", "rtp", 0), ("6", "info", 0.1)) == "56"
    assert heard(("5", "rtp", 0), ("5", "info", 2.5)) == "55"


def test_a_long_press_is_told_by_info_at_its_end():
    presses = Presses()
    assert presses.is_new("5", "rtp", 0.0)
    assert not presses.is_new("5", "info", 4.0, duration_ms=3500)


@given(st.text("12", max_size=25), st.floats(0, 1.5))
def test_a_peer_that_tells_all_twice_is_heard_once(digits, delay):
    reports = [(0.3 * at, digit, "rtp") for at, digit in enumerate(digits)]
    reports += [(0.3 * at + delay + 0.01, digit, "info") for at, digit in enumerate(digits)]
    assert (
        heard(*((digit, way, at) for at, digit, way in sorted(reports, key=lambda each: each[0]))) == digits
    )
