"""RFC 3550 appendix A.1 (sequence), A.3 (loss), A.8 (jitter)."""

import pytest

from offhook.media.reception import Order, Reception


def received(*sequences):
    reception = Reception(1, sequences[0])
    return reception, [reception.receive(sequence) for sequence in sequences]


def test_in_order():
    reception, orders = received(10, 11, 12)
    assert orders == [Order.NEWEST] * 3
    assert (reception.received, reception.expected, reception.lost) == (3, 3, 0)


def test_first_sequence_zero():
    reception, orders = received(0, 1)
    assert orders == [Order.NEWEST] * 2
    assert (reception.highest_sequence, reception.lost) == (1, 0)


def test_the_wrap_is_counted():
    reception, orders = received(65534, 65535, 0, 1)
    assert orders == [Order.NEWEST] * 4
    assert reception.highest_sequence == 0x10001
    assert reception.lost == 0


def test_overtaken_once_duplicate_twice():
    reception, orders = received(10, 12, 11, 11, 12, 10)
    assert orders[2:] == [Order.OVERTAKEN, Order.DUPLICATE, Order.DUPLICATE, Order.DUPLICATE]
    assert (reception.reordered, reception.duplicates, reception.received, reception.lost) == (1, 3, 3, 0)


def test_overtaken_across_the_wrap():
    reception, orders = received(65535, 1, 0)
    assert orders[2] is Order.OVERTAKEN
    assert reception.highest_sequence == 0x10001


def test_lost_are_those_that_never_came():
    reception, _ = received(1, 2, 5, 9)
    assert reception.lost == 5


def test_one_wild_number_is_not_believed_two_are():
    reception, orders = received(1, 2, 30000, 3, 40000, 40001, 40002)
    assert orders[2:] == [Order.JUMPED, Order.NEWEST, Order.JUMPED, Order.RESTARTED, Order.NEWEST]
    assert reception.highest_sequence == 40002
    assert reception.lost == 0


def test_loss_before_a_restart_is_not_forgotten():
    reception, _ = received(1, 5, 40000, 40001)
    assert reception.lost == 3


def test_fraction_lost_is_since_the_last_question():
    reception, _ = received(1, 2, 3, 5)
    assert reception.fraction_lost() == 256 // 5
    assert reception.fraction_lost() == 0
    for sequence in (6, 8, 10):
        reception.receive(sequence)
    assert reception.fraction_lost() == 256 * 2 // 5


def test_jitter_of_an_even_stream_is_none():
    reception = Reception(1, 0)
    for index in range(50):
        reception.measure(160 * index, 0.02 * index)
    assert reception.jitter == pytest.approx(0, abs=1e-6)


def test_jitter_settles_at_the_mean_deviation():
    """Every other packet 5 ms (40 units) late: |D| is always 40, and J goes to it by sixteenths."""
    reception = Reception(1, 0)
    reception.measure(0, 0.0)
    reception.measure(160, 0.025)
    assert reception.jitter == pytest.approx(40 / 16)
    reception.measure(320, 0.040)
    assert reception.jitter == pytest.approx(40 / 16 + (40 - 40 / 16) / 16)
    for index in range(3, 300):
        reception.measure(160 * index, 0.02 * index + 0.005 * (index % 2))
    assert reception.jitter == pytest.approx(40, abs=0.1)


def test_a_jump_of_the_clock_is_no_jitter():
    reception = Reception(1, 0)
    reception.measure(2**32 - 80, 0.0)
    reception.measure(80, 0.02)
    reception.measure(1_000_000, 0.04)
    assert reception.jitter == 0
