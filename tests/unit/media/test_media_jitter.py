"""The jitter buffer under networks made of seeded numbers, in virtual time."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.media.jitter import JitterBuffer
from offhook.media.reception import Order, Reception

TICK = 0.020


def frame(index):
    """A frame that tells its number, and is not quiet."""
    return bytes((index % 100, index // 100 % 100)) * 80


def number(taken):
    return None if taken is None else taken[0] + 100 * taken[1]


def quiet(index):
    return b"\xff" * 160 if index % 10 == 9 else frame(index)


def simulate(arrivals, ticks, *, first_tick=0.0, start=0, buffer=None):
    """
    Play (at, sequence, timestamp, payload) through a buffer.

    Returns what each tick gave, from the first one after the first packet on, and the buffer.
    """
    buffer = buffer or JitterBuffer("PCMU")
    reception = None
    waiting = sorted(arrivals)
    taken = []
    for tick in range(ticks):
        now = first_tick + tick * TICK
        while waiting and waiting[0][0] <= now:
            at, sequence, timestamp, payload = waiting.pop(0)
            if reception is None:
                reception = Reception(1, sequence & 0xFFFF)
            order = reception.receive(sequence & 0xFFFF)
            if order in (Order.NEWEST, Order.OVERTAKEN, Order.RESTARTED):
                buffer.insert(timestamp & 0xFFFFFFFF, payload, at, order is not Order.OVERTAKEN)
        if buffer.started:
            taken.append(buffer.take(now))
    return taken, buffer


def stream(
    count, *, delay=lambda index: 0.03, frames=frame, interval=TICK, step=160, sequence=0, timestamp=0
):
    return [
        (index * interval + delay(index), sequence + index, timestamp + step * index, frames(index))
        for index in range(count)
    ]


def numbers(taken):
    return [number(each) for each in taken]


def test_an_even_stream_comes_out_as_it_went_in():
    taken, buffer = simulate(stream(200), 190)
    assert numbers(taken)[:3] == [None, 0, 1]
    assert numbers(taken)[1:180] == list(range(179))
    assert (buffer.late, buffer.stretched, buffer.skipped, buffer.resyncs) == (0, 0, 0, 0)


@pytest.mark.parametrize("phase", [0.0, 0.0001, 0.007, 0.0199])
def test_the_first_frame_waits_between_one_frame_and_two(phase):
    taken, _ = simulate(stream(20, delay=lambda index: phase), 20)
    delay = TICK * (numbers(taken).index(0)) + (TICK - phase if phase else 0)
    assert 0.02 <= delay <= 0.04 + 1e-9


def test_order_is_restored():
    swapped = stream(100, delay=lambda index: 0.035 if index % 5 == 2 else 0.012)
    taken, _ = simulate(swapped, 95)
    heard = [each for each in numbers(taken) if each is not None]
    assert heard == list(range(len(heard)))
    assert len(heard) > 88


def test_sequence_and_timestamp_wrap():
    taken, buffer = simulate(stream(50, sequence=65530, timestamp=2**32 - 800), 48)
    assert numbers(taken)[1:40] == list(range(39))
    assert buffer.resyncs == 0


def test_a_lost_packet_leaves_its_place_empty():
    arrivals = [packet for packet in stream(30) if packet[1] not in (7, 8)]
    taken, _ = simulate(arrivals, 28)
    assert numbers(taken)[1:20] == [0, 1, 2, 3, 4, 5, 6, None, None, *range(9, 19)]


def test_a_gap_of_silence_keeps_the_place_of_what_follows():
    """DTX: the sender stops for two seconds, its clock goes on."""
    arrivals = [
        (at + (2.0 if n >= 20 else 0), n, ts + (16000 if n >= 20 else 0), data)
        for at, n, ts, data in stream(40)
    ]
    taken, buffer = simulate(arrivals, 140)
    heard = numbers(taken)
    assert heard[1:21] == list(range(20))
    assert heard[21:121] == [None] * 100
    assert heard[121:135] == list(range(20, 34))
    assert (buffer.late, buffer.resyncs, buffer.stretched) == (0, 0, 0)


def test_a_gap_that_ends_off_the_grid():
    """After a pause some gateways stamp by the wall clock, not by whole frames."""
    arrivals = [
        (at + (2.0 if n >= 20 else 0), n, ts + (16037 if n >= 20 else 0), data)
        for at, n, ts, data in stream(40)
    ]
    taken, _ = simulate(arrivals, 140)
    assert [each for each in numbers(taken) if each is not None][:36] == list(range(36))


@pytest.mark.parametrize("jump", [1_000_000, -1_000_000, 2**31 - 5, 40_000, -40_000])
def test_a_jump_of_the_senders_clock_costs_little(jump):
    arrivals = [
        (at, n, ts + (jump if n >= 50 else 0), data) for at, n, ts, data in stream(100, timestamp=123)
    ]
    taken, buffer = simulate(arrivals, 98)
    heard = [each for each in numbers(taken) if each is not None]
    assert len(heard) >= 93
    assert heard == sorted(set(heard))
    assert buffer.resyncs == 1


@pytest.mark.parametrize("ms", [10, 20, 30, 40, 60])
def test_packets_of_any_length_become_frames(ms):
    sound = b"".join(map(frame, range(120)))
    step = 8 * ms
    arrivals = [
        (0.005 + at / 8000 + ms / 1000, index, at, sound[at : at + step])
        for index, at in enumerate(range(0, len(sound), step))
    ]
    taken, buffer = simulate(arrivals, 115)
    heard = [each for each in numbers(taken) if each is not None]
    assert heard[:100] == list(range(100))
    assert buffer.late == 0


def test_a_stream_may_change_its_packet_length():
    sound = b"".join(map(frame, range(120)))
    arrivals, at, index = [], 0, 0
    for ms in [20] * 20 + [30] * 20 + [10] * 40 + [60] * 6:
        arrivals.append((0.005 + (at / 8 + 60) / 1000, index, at, sound[at : at + 8 * ms]))
        at, index = at + 8 * ms, index + 1
    taken, _ = simulate(arrivals, 100)
    heard = [each for each in numbers(taken) if each is not None]
    assert heard == list(range(len(heard)))
    assert len(heard) > 85


def test_late_packets_make_the_buffer_deeper_until_nothing_is_late():
    rng = random.Random(1)
    arrivals = stream(1500, delay=lambda index: 0.02 + rng.random() * 0.09, frames=quiet)
    taken, buffer = simulate(arrivals, 1480)
    assert buffer.stretched >= 3
    heard = [each for each in taken[200:] if each is not None]
    # Jitter of 90 ms peak to peak is more than the buffer begins with; from then on hardly a frame is missed.
    assert len(heard) / len(taken[200:]) > 0.985
    assert buffer.depth <= 11


def test_after_a_bad_time_the_delay_comes_down_again():
    rng = random.Random(2)
    arrivals = stream(
        3000, delay=lambda index: 0.02 + (rng.random() * 0.14 if index < 300 else 0), frames=quiet
    )
    depths = []

    class Watched(JitterBuffer):
        def take(self, now):
            depths.append(self.depth)
            return super().take(now)

    _, buffer = simulate(arrivals, 2950, buffer=Watched("PCMU"))
    assert max(depths[200:320]) >= 5
    assert max(depths[-200:]) <= 3
    assert buffer.skipped <= buffer.stretched + 2


def test_a_stall_of_the_network_is_caught_up_with():
    """Half a second comes at once: what cannot be kept within 200 ms is left out, the rest is in order."""
    arrivals = stream(
        200, delay=lambda index: 0.03 if index < 50 or index >= 75 else 0.03 + (75 - index) * TICK
    )
    taken, buffer = simulate(arrivals, 190)
    heard = [each for each in numbers(taken) if each is not None]
    assert heard == sorted(set(heard))
    assert buffer.depth <= 11
    assert len(heard) > 155


@pytest.mark.parametrize("ppm", [-500, 500, 5000, -5000])
def test_a_senders_clock_that_drifts_is_followed(ppm):
    interval = TICK * (1 - ppm / 1e6)
    count = 9000
    taken, buffer = simulate(stream(count, interval=interval, frames=quiet), int(count * interval / TICK) - 5)
    moves = abs(ppm) * 1e-6 * count
    assert (buffer.skipped if ppm > 0 else buffer.stretched) == pytest.approx(moves, abs=4)
    assert buffer.depth <= 5
    missing = sum(each is None for each in taken[100:])
    assert missing <= moves + 4
    assert buffer.late <= moves + 4


def test_one_straggler_does_not_deepen_the_buffer():
    arrivals = stream(200, delay=lambda index: 0.2 if index == 50 else 0.03)
    taken, buffer = simulate(arrivals, 190)
    assert (buffer.late, buffer.stretched) == (1, 0)
    assert numbers(taken)[51] is None


def test_oversized_and_empty_payloads_are_passed_over():
    buffer = JitterBuffer("PCMU")
    buffer.insert(0, b"", 0.0)
    buffer.insert(0, bytes(60000), 0.0)
    assert not buffer.started


def test_what_is_kept_stays_bounded_whatever_comes():
    rng = random.Random(3)
    buffer = JitterBuffer("PCMA")
    for index in range(20000):
        buffer.insert(rng.getrandbits(32), bytes(rng.randrange(1, 1600)), index * 0.001, rng.random() < 0.5)
        if index % 20 == 0:
            buffer.take(index * 0.001)
    assert len(buffer._frames) + len(buffer._pieces) < 60


@given(st.integers(0, 2**32), st.floats(0, 0.5), st.floats(0, 0.3))
def test_under_any_loss_order_and_repetition_no_frame_comes_twice_or_out_of_order(seed, loss, spread):
    rng = random.Random(seed)
    arrivals = []
    for packet in stream(150, delay=lambda index: rng.random() * spread, frames=frame):
        if rng.random() >= loss:
            arrivals.append(packet)
            if rng.random() < 0.1:
                arrivals.append((packet[0] + rng.random() * 0.1, *packet[1:]))
    taken, _ = simulate(arrivals, 170)
    heard = [each for each in numbers(taken) if each is not None]
    assert heard == sorted(set(heard))


def test_the_count_of_frames_may_run_for_days():
    """Past 22 minutes the buffer counts anew, past 2**32 samples the timestamp wraps: neither is heard."""
    buffer = JitterBuffer("PCMU")
    first = 2**32 - 1000
    taken = []
    for index in range(70_000):
        buffer.insert(first + 160 * index & 0xFFFFFFFF, frame(index), 0.02 * index + 0.005)
        taken.append(number(buffer.take(0.02 * index + 0.02)))
    assert taken[1:] == [index % 10_000 for index in range(69_999)]
    assert (buffer.resyncs, buffer.late, buffer.stretched, buffer.skipped) == (0, 0, 0, 0)
    assert buffer._cursor < 10_000
