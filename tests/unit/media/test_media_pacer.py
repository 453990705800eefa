"""The pacer on a loop whose time is handed in: no test here waits."""

import asyncio
import itertools
import logging

import pytest

from offhook.media.pacer import MAX_CATCH_UP, Pacer


class FakeClock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def wall(self):
        return 1e9 + self.now


class FakeLoop:
    """Runs timers in order, each some time after its date, and nothing else."""

    def __init__(self, clock, late=0.0):
        self.clock = clock
        self.late = late
        self.timers = []

    def call_later(self, delay, callback):
        assert delay >= 0.001
        timer = [self.clock.now + delay, callback, False]
        self.timers.append(timer)
        return Handle(timer)

    def run(self, seconds):
        end = self.clock.now + seconds
        while self.timers:
            timer = min(self.timers, key=lambda each: each[0])
            if timer[0] + self.late > end:
                break
            self.timers.remove(timer)
            if not timer[2]:
                self.clock.now = max(self.clock.now, timer[0] + self.late)
                timer[1]()
        self.clock.now = end


class Handle:
    def __init__(self, timer):
        self.timer = timer

    def cancel(self):
        self.timer[2] = True


class Call:
    def __init__(self, clock, log=None):
        self.clock = clock
        self.sent = []
        self.heard = []
        self.skipped = 0
        self.log = log if log is not None else []
        self.on_hear = lambda: None

    def send(self, now):
        self.sent.append(self.clock.now)
        self.log.append(("send", self))

    def hear(self, now):
        self.heard.append(self.clock.now)
        self.log.append(("hear", self))
        self.on_hear()

    def skip(self, frames):
        self.skipped += frames


@pytest.fixture
def paced(monkeypatch):
    clock = FakeClock()
    loop = FakeLoop(clock)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    pacer = Pacer(clock)
    pacer.start()
    return clock, loop, pacer


def gaps(times):
    return [b - a for a, b in itertools.pairwise(times)]


def test_one_call_every_twenty_ms(paced):
    clock, loop, pacer = paced
    call = Call(clock)
    pacer.add(call)
    loop.run(2.0)
    assert len(call.sent) in (99, 100)
    assert call.sent == call.heard
    assert gaps(call.sent) == pytest.approx([0.02] * (len(call.sent) - 1))


def test_late_wakes_do_not_add_up(paced):
    clock, loop, pacer = paced
    call = Call(clock)
    pacer.add(call)
    loop.late = 0.0007
    loop.run(60.0)
    assert len(call.sent) in range(2998, 3002)
    assert call.skipped == 0


def test_a_call_that_cannot_skip_does_not_stop_the_others(paced, caplog):
    clock, loop, pacer = paced
    broken, good = Call(clock), Call(clock)

    def skip(frames):
        raise RuntimeError("on purpose")

    broken.skip = skip
    pacer.add(broken)
    pacer.add(good)
    loop.run(1.0)
    clock.now += 1.0
    loop.run(1.0)
    assert good.skipped > 0
    assert gaps(good.sent[-20:]) == pytest.approx([0.02] * 19)
    assert [record.event for record in caplog.records] == ["media.frame.failed"]


def test_calls_are_spread_over_the_interval(paced):
    clock, loop, pacer = paced
    calls = [Call(clock) for _ in range(60)]
    for call in calls:
        pacer.add(call)
    loop.run(1.0)
    starts = sorted(round((call.sent[10] - calls[0].sent[10]) * 1000) % 20 for call in calls)
    assert starts == sorted(list(range(20)) * 3)


def test_few_calls_are_far_apart(paced):
    clock, loop, pacer = paced
    calls = [Call(clock) for _ in range(4)]
    for call in calls:
        pacer.add(call)
    loop.run(1.0)
    phases = sorted((call.sent[10] % 0.02) * 1000 for call in calls)
    assert min(gaps(phases)) >= 3


def test_an_idle_pacer_has_no_timer(paced):
    clock, loop, pacer = paced
    assert loop.timers == []
    call = Call(clock)
    pacer.add(call)
    loop.run(0.1)
    pacer.remove(call)
    loop.run(0.1)
    assert loop.timers == []
    sent = len(call.sent)
    loop.run(10.0)
    assert len(call.sent) == sent


def test_after_a_rest_it_does_not_make_up_for_it(paced):
    clock, loop, pacer = paced
    first, second = Call(clock), Call(clock)
    pacer.add(first)
    loop.run(0.1)
    pacer.remove(first)
    loop.run(5.0)
    pacer.add(second)
    loop.run(0.1)
    assert len(second.sent) in (4, 5)
    assert pacer.stats.late_wakes == 0


def test_a_short_stall_is_made_up_for_at_once(paced):
    clock, loop, pacer = paced
    call = Call(clock)
    pacer.add(call)
    loop.run(0.1)
    before = len(call.sent)
    clock.now += 0.05
    loop.run(0.05)
    assert len(call.sent) - before in (4, 5)
    assert call.skipped == 0
    assert pacer.stats.late_wakes == 1


def test_of_a_long_stall_most_is_left_out(paced):
    clock, loop, pacer = paced
    call = Call(clock)
    pacer.add(call)
    loop.run(0.1)
    before = len(call.sent)
    clock.now += 2.0
    loop.run(0.0)
    assert len(call.sent) - before <= MAX_CATCH_UP + 1
    assert call.skipped in (96, 97)
    loop.run(1.0)
    assert len(call.sent) - before + call.skipped in (149, 150, 151)
    assert pacer.stats.skipped == call.skipped
    assert 1.9 < pacer.stats.latest_s <= 2.0


def test_all_packets_of_a_slot_leave_before_anything_is_heard(paced):
    clock, loop, pacer = paced
    log = []
    calls = [Call(clock, log) for _ in range(40)]
    for call in calls:
        pacer.add(call)
    loop.run(0.05)
    what = [each for each, _ in log[:4]]
    assert what == ["send", "send", "hear", "hear"]


def test_a_call_that_fails_harms_no_other(paced, caplog):
    clock, loop, pacer = paced
    bad, good = Call(clock), [Call(clock) for _ in range(20)]

    def fail():
        raise RuntimeError("on purpose")

    bad.on_hear = fail
    for call in (bad, *good):
        pacer.add(call)
    with caplog.at_level(logging.ERROR):
        loop.run(0.5)
    assert pacer.stats.failures in (24, 25)
    assert [record.event for record in caplog.records] == ["media.frame.failed"]
    assert {len(call.sent) for call in good} <= {24, 25}
    assert len(bad.sent) in (24, 25)


def test_a_call_may_leave_while_it_is_served(paced):
    clock, loop, pacer = paced
    calls = [Call(clock) for _ in range(40)]
    for call in calls:
        call.on_hear = lambda call=call: pacer.remove(call)
        pacer.add(call)
    loop.run(0.5)
    assert [len(call.sent) for call in calls] == [1] * 40
    assert len(pacer) == 0


def test_closed_it_stops(paced):
    clock, loop, pacer = paced
    call = Call(clock)
    pacer.add(call)
    loop.run(0.1)
    sent = len(call.sent)
    pacer.close()
    loop.run(0.5)
    assert len(call.sent) == sent
    with pytest.raises(RuntimeError, match="not started"):
        pacer.add(call)
