"""The buffer that holds nothing back but what follows a gap, in virtual time."""

import random

import pytest

from offhook.media.prompt import LEAD_FRAMES, MAX_AHEAD, PromptBuffer
from offhook.media.reception import Order, Reception

TICK = 0.020
LONGEST_WAIT = (LEAD_FRAMES + 1) * TICK


def frame(index):
    """A frame that tells its number, and is not quiet."""
    return bytes((index % 100, index // 100 % 100)) * 80


def number(given):
    return given[0] + 100 * given[1]


def simulate(arrivals, ticks, *, phase=0.0, buffer=None):
    """
    Play (at, sequence) through a buffer. Returns what it gave as (at, number), `None` for a frame missed.

    The first tick after the first packet is at `phase` within its 20 ms.
    """
    buffer = buffer or PromptBuffer("PCMU")
    reception, given = None, []
    waiting = sorted(arrivals)

    def drain(at):
        while (early := buffer.take_early()) is not None:
            given.append((at, number(early)))

    for tick in range(ticks):
        now = phase + tick * TICK
        while waiting and waiting[0][0] <= now:
            at, sequence = waiting.pop(0)
            reception = reception or Reception(1, sequence & 0xFFFF)
            order = reception.receive(sequence & 0xFFFF)
            if order in (Order.NEWEST, Order.OVERTAKEN, Order.RESTARTED):
                buffer.insert(sequence * 160 & 0xFFFFFFFF, frame(sequence), at, order is not Order.OVERTAKEN)
            drain(at)
        if buffer.started:
            taken = buffer.take(now)
            if taken is None:
                given.append((now, None))
            elif taken:
                given.append((now, number(taken)))
            drain(now)
    return given, buffer


def stream(count, *, delay=lambda index: 0.03, interval=TICK, without=()):
    return [(index * interval + delay(index), index) for index in range(count) if index not in without]


def numbers(given):
    return [number for _, number in given if number is not None]


def missed(given):
    return sum(number is None for _, number in given)


@pytest.mark.parametrize("phase", [0.0, 0.0001, 0.0099, 0.0199])
def test_what_comes_in_order_is_given_as_it_comes(phase):
    arrivals = stream(500, delay=lambda index: 0.0301)
    given, buffer = simulate(arrivals, 500, phase=phase)
    assert given == arrivals[: len(given)]
    assert len(given) > 490
    assert (buffer.late, buffer.stretched, buffer.skipped, buffer.resyncs) == (0, 0, 0, 0)
    assert buffer.depth <= 0


def test_jitter_of_60_ms_is_passed_on_and_nothing_is_made_up():
    rng = random.Random(5)
    lateness = [rng.uniform(0, 0.06) if index else 0.0 for index in range(1000)]
    # Routers delay packets but keep their order.
    at, arrivals = 0.0, []
    for index in range(1000):
        at = max(at, index * TICK + lateness[index])
        arrivals.append((at, index))
    given, _ = simulate(arrivals, 1010)
    assert given[:1000] == arrivals


def test_what_was_overtaken_holds_the_others_back_until_it_comes():
    given, buffer = simulate(stream(100, delay=lambda index: 0.075 if index == 50 else 0.03), 110)
    assert numbers(given) == list(range(100))
    assert missed(given[:100]) == 0
    at = {number: at for at, number in given}
    assert at[49] == pytest.approx(49 * TICK + 0.03)
    assert at[50] == at[51] == at[52] == pytest.approx(50 * TICK + 0.075)
    assert at[53] == pytest.approx(53 * TICK + 0.03)
    assert (buffer.late, buffer.stretched) == (0, 0)


def test_what_is_lost_is_missed_once_and_the_rest_follows_at_once():
    given, _ = simulate(stream(100, without={50}), 100)
    told = [number for _, number in given]
    assert told[48:53] == [48, 49, None, 51, 52]
    at = {number: at for at, number in given}
    wait = at[None] - (50 * TICK + 0.03)
    assert LEAD_FRAMES * TICK - TICK <= wait <= LONGEST_WAIT
    assert at[51] == at[52] == at[None]
    assert at[54] == pytest.approx(54 * TICK + 0.03)


def test_waiting_longer_than_an_even_buffer_does_not_wear_off_on_a_good_network():
    given, _ = simulate(stream(1000, delay=lambda index: 0.085 if index == 900 else 0.03), 1000)
    assert missed(given) == 0
    assert numbers(given)[:990] == list(range(990))


def test_what_comes_after_it_was_made_up_for_is_too_late():
    given, buffer = simulate(stream(100, delay=lambda index: 0.2 if index == 50 else 0.03), 100)
    assert 50 not in numbers(given)
    assert buffer.late == 1


def test_packets_that_keep_coming_too_late_are_waited_for():
    late = dict.fromkeys(range(20, 2000, 10), 0.03 + 0.13)
    given, buffer = simulate(stream(2000, delay=lambda index: late.get(index, 0.03)), 2000)
    assert buffer.late < 10
    assert numbers(given)[-900:] == list(range(numbers(given)[-900], numbers(given)[-1] + 1))


def test_a_network_that_stalls_gives_every_word_afterwards():
    given, buffer = simulate(
        [(at if not 1.0 < at < 1.6 else 1.6 + index * 1e-6, index) for at, index in stream(200)], 210
    )
    assert numbers(given) == list(range(200))
    assert buffer.skipped == 0
    assert 20 < missed([one for one in given if one[0] < 2.0]) < 30


def test_a_sender_that_pauses_leaves_a_frame_to_fill_every_20_ms():
    given, buffer = simulate(stream(300, without=set(range(100, 200))), 320)
    told = [number for _, number in given]
    assert numbers(given) == [*range(100), *range(200, 300)]
    assert told[100:200] == [None] * 100
    # What follows a pause waits for its turn no longer than what follows a loss.
    at = {number: at for at, number in given}
    assert at[200] - (200 * TICK + 0.03) <= LONGEST_WAIT
    assert at[299] == pytest.approx(299 * TICK + 0.03)
    assert buffer.resyncs == 0


@pytest.mark.parametrize("ppm", [-500, -50, 50, 500])
def test_a_senders_clock_that_drifts_loses_nothing(ppm):
    count = 9_900
    given, buffer = simulate(stream(count, interval=TICK * (1 + ppm / 1e6)), count - 50)
    told = numbers(given)
    assert told == list(range(len(told)))
    # The sender who is slow by 100 ms is made up for, no more than that.
    assert missed(given) <= 8
    assert buffer.late == buffer.skipped == 0


def test_a_sender_twice_too_fast_is_heard_at_the_pace_of_time():
    given, buffer = simulate(stream(2000, interval=TICK / 2), 1000)
    assert len(numbers(given)) <= 1000 + MAX_AHEAD
    assert buffer.skipped > 800


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("loss", [0.0, 0.2])
@pytest.mark.parametrize("spread", [0.02, 0.3])
def test_under_any_loss_order_and_repetition_no_frame_comes_twice_or_out_of_order(seed, loss, spread):
    rng = random.Random(seed)
    arrivals = []
    for index in range(400):
        copies = range(1 + (rng.random() < 0.1))
        arrivals += [(index * TICK + rng.random() * spread, index) for _ in copies if rng.random() >= loss]
    given, buffer = simulate(arrivals, 420, phase=rng.random() * TICK)
    told = numbers(given)
    assert told == sorted(set(told))
    assert len(told) + buffer.late + buffer.skipped <= 400
    if spread == 0.02:
        assert set(told) == {index for _, index in arrivals}


def test_the_count_of_frames_may_run_for_days():
    buffer = PromptBuffer("PCMU")
    for index in range(140_000):
        now = index * TICK
        buffer.insert((2**32 - 160_000 + index * 160) & 0xFFFFFFFF, frame(index), now)
        assert buffer.take_early() == frame(index)
        assert buffer.take(now + 0.01) == b""
    assert (buffer.late, buffer.stretched, buffer.skipped, buffer.resyncs) == (0, 0, 0, 0)


@pytest.mark.parametrize("ms", [10, 30, 40, 60])
def test_packets_of_any_length_become_frames_as_soon_as_they_can(ms):
    sound = b"".join(frame(index) for index in range(300))
    size, buffer, given = 8 * ms, PromptBuffer("PCMU"), []
    for number in range(len(sound) // size):
        now = number * ms / 1000
        buffer.insert(number * size, sound[number * size : (number + 1) * size], now)
        given += iter(buffer.take_early, None)
        assert len(given) == (number + 1) * size // 160, "no whole frame waits"
        for tick in range(number * ms // 20, (number + 1) * ms // 20):
            assert buffer.take(tick * TICK) == b""
    assert b"".join(given) == sound[: len(given) * 160]
    assert (buffer.late, buffer.skipped, buffer.resyncs) == (0, 0, 0)


@pytest.mark.parametrize("ms", [10, 30, 50])
def test_packets_that_do_not_fill_frames_may_overtake_each_other(ms):
    """Each tenth packet comes after the one behind it; no sample is lost or moved."""
    size, buffer, given, tick = ms * 8, PromptBuffer("PCMU"), b"", 0.01
    sound = bytes(at % 251 for at in range(size * 80))
    order = [sequence + {8: 1, 9: -1}.get(sequence % 10, 0) for sequence in range(80)]
    for step, sequence in enumerate(order):
        while tick < step * ms / 1000:
            given += buffer.take(tick) or b""
            tick += TICK
        newest = sequence == max(order[: step + 1])
        buffer.insert(sequence * size, sound[sequence * size :][:size], step * ms / 1000, newest)
        while (early := buffer.take_early()) is not None:
            given += early
    assert (given, buffer.late) == (sound[: len(given)], 0)
    assert len(sound) - len(given) < 160
