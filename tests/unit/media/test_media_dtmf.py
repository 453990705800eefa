"""RFC 4733: the same press is heard once, whatever part of it gets through."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.media.dtmf import DtmfReceiver, DtmfSender


def event(code, duration, end=False, volume=10):
    return struct.pack("!BBH", code, (0x80 if end else 0) | volume, duration)


def press(code, timestamp, frames=5, step=160):
    """The packets of one press: (payload, timestamp, marker)."""
    packets = [(event(code, step * n), timestamp, n == 1) for n in range(1, frames)]
    return packets + [(event(code, step * frames, end=True), timestamp, False)] * 3


def heard(packets):
    receiver = DtmfReceiver()
    digits = [receiver.receive(payload, timestamp, marker=marker) for payload, timestamp, marker in packets]
    return "".join(digit for digit in digits if digit)


def test_every_code_has_its_digit():
    presses = [press(code, 1000 * code) for code in range(16)]
    assert heard(itertools.chain(*presses)) == "0123456789*#ABCD"


def test_a_digit_is_there_with_the_first_packet():
    assert DtmfReceiver().receive(event(5, 160), 0, marker=True) == "5"


def test_the_example_of_section_5():
    """RFC 4733 section 2.5.1.? style: 9, 1, 1 dialled with lost and repeated packets."""
    packets = press(9, 0) + press(1, 1600) + press(1, 5600)
    assert heard(packets) == "911"


@given(st.sets(st.integers(0, 6), max_size=6))
def test_any_packets_of_a_press_may_be_lost_but_one(lost):
    first, second = press(7, 0), press(7, 4000)
    kept = [packet for index, packet in enumerate(first) if index not in lost]
    assert heard(kept + second) == "77"


def test_all_ends_lost_then_another_press_of_the_same_key():
    assert heard(press(3, 0)[:-3] + press(3, 2400)) == "33"


def test_repeated_and_reordered_packets():
    packets = press(4, 0)
    assert heard([packets[2], packets[0], packets[1], packets[0], *packets]) == "4"


def test_an_end_overtaken_by_the_next_press_is_not_heard_again():
    first, second = press(1, 0), press(2, 1600)
    assert heard([*first[:-1], second[0], first[-1], *second[1:]]) == "12"


def test_a_press_longer_than_its_field_is_one_press():
    """Section 2.5.1.3: segments of 0xFFFF, the next with the timestamp where the last ended, no marker."""
    first = [(event(8, duration), 0, duration == 160) for duration in range(160, 0xFFFF, 160)]
    first.append((event(8, 0xFFFF), 0, False))
    second = [(event(8, duration), 0xFFFF, False) for duration in range(160, 1600, 160)]
    second += [(event(8, 1600, end=True), 0xFFFF, False)] * 3
    assert heard(first + second) == "8"


def test_a_sender_that_moves_the_timestamp_with_every_packet():
    packets = [(event(6, 160 * n, end=n == 8), 160 * n, n == 1) for n in range(1, 9)]
    assert heard(packets) == "6"


@pytest.mark.parametrize("moves", [160, 0])
def test_a_sender_that_moves_the_timestamp_repeats_its_end_too(moves):
    """The repeated ends have a timestamp each, or each that of the end; and the same key is pressed again."""
    packets = []
    for start in (0, 1760, 3520):
        packets += [(event(6, 160 * n, end=n == 5), start + 160 * n, n == 1) for n in range(1, 6)]
        packets += [(event(6, 800, end=True), start + 800 + moves * n, False) for n in (1, 2)]
    assert heard(packets) == "666"


@pytest.mark.parametrize("lost", [4, 5, 6])
def test_only_the_end_of_the_next_press_of_the_same_key_gets_through(lost):
    """As short as a press and its pause may be: 40 ms each."""
    packets = press(6, 0, frames=2) + press(6, 640, frames=2)
    assert heard(packets[:4] + packets[lost:]) == "66"


def test_timestamps_wrap():
    assert heard(press(1, 2**32 - 800) + press(2, 1600)) == "12"


def test_a_clock_set_back_far_is_a_new_stream():
    assert heard(press(1, 1_000_000) + press(1, 0)) == "11"


def test_flash_and_short_payloads_are_no_digits():
    assert heard(press(16, 0)) == ""
    assert DtmfReceiver().receive(b"\x05\x0a\x00", 0) is None


@given(st.lists(st.tuples(st.binary(max_size=8), st.integers(0, 2**32 - 1), st.booleans()), max_size=30))
def test_nothing_crashes_the_receiver(packets):
    assert len(heard(packets)) <= len(packets)


def sent(sender):
    frames = []
    timestamp = 0
    while sender:
        frames.append(sender.next(timestamp))
        timestamp += 160
    return frames


def test_one_digit_on_the_wire():
    sender = DtmfSender()
    sender.send("5", duration_ms=100, gap_ms=60)
    frames = sent(sender)
    assert frames == [
        (event(5, 160), 0, True),
        (event(5, 320), 0, False),
        (event(5, 480), 0, False),
        (event(5, 640), 0, False),
        (event(5, 800, end=True), 0, False),
        (event(5, 800, end=True), 0, False),
        (event(5, 800, end=True), 0, False),
        None,
    ]


def test_the_gap_counts_from_the_press():
    sender = DtmfSender()
    sender.send("12", duration_ms=100, gap_ms=60)
    starts = [index for index, frame in enumerate(sent(sender)) if frame and frame[2]]
    assert starts == [0, 8]


def test_three_ends_even_without_a_gap():
    sender = DtmfSender()
    sender.send("1", duration_ms=40, gap_ms=0)
    assert [frame[0][1] >> 7 for frame in sent(sender)] == [0, 1, 1, 1]


@given(st.text("0123456789*#ABCD", max_size=12), st.integers(1, 400), st.integers(0, 400))
def test_what_is_sent_is_heard(digits, duration_ms, gap_ms):
    sender = DtmfSender()
    sender.send(digits, duration_ms, gap_ms)
    assert heard(frame for frame in sent(sender) if frame) == digits


def test_small_letters_are_taken_and_others_refused():
    sender = DtmfSender()
    sender.send("a")
    assert heard(frame for frame in sent(sender) if frame) == "A"
    with pytest.raises(ValueError, match="'x' is no DTMF digit"):
        sender.send("12x")
    with pytest.raises(ValueError, match="duration_ms=0"):
        sender.send("1", duration_ms=0)
    assert not sender


def test_pauses_between_digits():
    sender = DtmfSender()
    sender.send("1w2,", duration_ms=100, gap_ms=60)
    frames = sent(sender)
    starts = [index for index, frame in enumerate(frames) if frame and frame[2]]
    assert starts == [0, 8 + 25]
    assert len(frames) == 8 + 25 + 8 + 100
