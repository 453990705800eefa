"""What may start now: places, order, and the breaker (design decision 9)."""

from offhook.webhooks.breaker import Breaker
from offhook.webhooks.queue import EndpointQueue, Queued, QueueLimits
from offhook.webhooks.schedule import BACKOFF, URGENT, Attempts


def make(*, urgent=256, ordinary=16, waiting=10_000, failures=5):
    return EndpointQueue(QueueLimits(urgent, ordinary, waiting), Breaker(failures=failures, pause=2.0))


def call(name, now=0.0):
    return Queued(name, Attempts(URGENT, now=now, draw=lambda: 0.5), urgent=True)


def news(name, now=0.0):
    return Queued(name, Attempts(BACKOFF, now=now, draw=lambda: 0.5), urgent=False)


def taken(queue, now):
    return [queued.item for queued in queue.take(now)]


def fail(queue, queued, now):
    """Let an attempt fail, and wait here for the next one."""
    will_retry = queue.finish(queued, delivered=False, now=now)
    if will_retry:
        queue.resume(queued)
    return will_retry


def open_breaker(queue, now=0.0, failures=5):
    """Let deliveries of no interest fail until the breaker opens, and end them."""
    for _ in range(failures):
        queued = news("filler", now)
        queue.add(queued)
        assert queue.take(now) == [queued]
        queue.finish(queued, delivered=False, permanent=True, now=now)


def test_all_starts_at_once_while_there_are_places():
    queue = make()
    for name in "abc":
        queue.add(call(name))
    assert taken(queue, 0.0) == ["a", "b", "c"]
    assert queue.next_timer() is None


def test_places_bound_what_is_under_way():
    queue, calls = make(urgent=2), [call(name) for name in "abc"]
    for queued in calls:
        queue.add(queued)
    assert taken(queue, 0.0) == ["a", "b"]
    assert taken(queue, 1.0) == []
    queue.finish(calls[0], delivered=True, now=1.0)
    assert taken(queue, 1.0) == ["c"]


def test_other_events_cannot_take_a_ringing_phones_place():
    queue = make(urgent=1, ordinary=1)
    queue.add(news("ended 1"))
    queue.add(news("ended 2"))
    assert taken(queue, 0.0) == ["ended 1"]
    queue.add(call("incoming"))
    assert taken(queue, 0.0) == ["incoming"]


def test_one_attempt_at_a_time_for_one_event():
    queue, queued = make(), call("a")
    queue.add(queued)
    assert taken(queue, 0.0) == ["a"]
    assert taken(queue, 100.0) == []


def test_a_retry_waits_for_its_time():
    queue, queued = make(), call("a")
    queue.add(queued)
    queue.take(0.0)
    assert fail(queue, queued, 1.0) is True
    assert queue.next_timer() == 1.5
    assert taken(queue, 1.4) == []
    assert taken(queue, 1.5) == ["a"]
    assert queued.attempts.number == 2


def test_an_expired_retry_is_dropped():
    queue, queued = make(), call("a")
    queue.add(queued)
    queue.take(0.0)
    fail(queue, queued, 0.0)
    queued.attempts.expire()
    assert queue.next_timer() is None
    assert taken(queue, 60.0) == []


def test_an_expired_first_attempt_is_never_made():
    queue, first, second = make(urgent=1), call("a"), call("b")
    queue.add(first)
    queue.add(second)
    queue.take(0.0)
    second.attempts.expire()
    queue.finish(first, delivered=True, now=1.0)
    assert taken(queue, 1.0) == []


def test_an_open_breaker_holds_retries_and_other_events():
    queue = make()
    open_breaker(queue)
    queue.add(news("later"))
    assert taken(queue, 0.0) == []
    assert queue.next_timer() == 2.0


def test_an_open_breaker_never_delays_the_first_attempt_for_a_ringing_phone():
    queue = make()
    open_breaker(queue)
    queue.add(call("incoming"))
    assert taken(queue, 0.0) == ["incoming"]


def test_an_open_breaker_never_delays_a_retry_while_the_phone_rings():
    """API row W15: 0.5, 1, 2, 4 s, although the app was down for the call before."""
    queue, incoming = make(), call("incoming")
    open_breaker(queue)
    queue.add(incoming)
    queue.add(news("waiting"))
    assert taken(queue, 0.0) == ["incoming"]
    started = []
    for _ in range(4):
        now = started[-1] if started else 0.0
        fail(queue, incoming, now)
        started.append(incoming.attempts.due)
        assert "incoming" in taken(queue, started[-1])
    assert [b - a for a, b in zip([0.0, *started], started, strict=False)] == [0.5, 1, 2, 4]


def test_after_the_pause_one_delivery_probes_and_the_rest_wait():
    queue = make()
    open_breaker(queue)
    first, second = news("first"), news("second")
    queue.add(first)
    queue.add(second)
    assert taken(queue, 2.0) == ["first"]
    assert queue.next_timer() is None
    queue.finish(first, delivered=True, now=2.1)
    assert taken(queue, 2.1) == ["second"]


def test_a_failed_probe_doubles_the_pause_up_to_a_minute():
    queue, queued = make(), news("probe")
    open_breaker(queue)
    queue.add(queued)
    now, pauses = 0.0, []
    for _ in range(8):
        due = queue.next_timer()
        assert taken(queue, due) == ["probe"]
        fail(queue, queued, due)
        pauses.append(due - now)
        now = due
    assert pauses[:5] == [2, 4, 8, 16, 32]
    assert max(pauses[:7]) == 60


def test_what_an_open_breaker_held_until_its_time_was_over_is_given_up():
    """Decision 9: for up to 72 h. One probe a minute would let the others wait for weeks."""
    queue = make()
    open_breaker(queue)
    held = [news(number) for number in range(5)]
    for queued in held:
        queue.add(queued)
    over = 72 * 3600.0 + 1
    assert queue.overdue(over - 2, 10) == []
    (probe,) = queue.take(over)
    assert queue.overdue(over, 3) == held[1:4]
    assert queue.overdue(over, 3) == held[4:]
    assert queue.finish(probe, delivered=True, now=over) is False
    assert len(queue) == 0


def test_what_only_waits_for_a_place_is_not_given_up():
    queue = make(ordinary=1)
    first, second = news("first"), news("second")
    queue.add(first)
    queue.add(second)
    over = 72 * 3600.0 + 1
    assert queue.take(over) == [first]
    assert queue.overdue(over, 10) == []
    queue.finish(first, delivered=True, now=over)
    assert queue.take(over) == [second]


def test_what_somebody_asks_for_now_is_a_probe():
    queue, wanted = make(), news("wanted")
    open_breaker(queue)
    queue.add(wanted)
    assert taken(queue, 1.0) == []
    queue.hasten(wanted, 1.0)
    assert taken(queue, 1.0) == ["wanted"]
    fail(queue, wanted, 1.1)
    queue.hasten(wanted, 1.2)
    assert taken(queue, 1.2) == ["wanted"]


def test_asking_again_and_again_takes_no_more_room():
    queue, wanted = make(waiting=100), news("wanted")
    open_breaker(queue)
    queue.add(wanted)
    for number in range(1000):
        queue.hasten(wanted, number / 1000)
    assert queue.room == 99


def test_a_call_that_gets_through_frees_what_waited():
    queue = make()
    open_breaker(queue)
    queue.add(news("waiting"))
    incoming = call("incoming")
    queue.add(incoming)
    queue.take(0.1)
    queue.finish(incoming, delivered=True, now=0.2)
    assert taken(queue, 0.2) == ["waiting"]


def test_a_failed_first_attempt_does_not_put_the_probe_off():
    queue = make()
    open_breaker(queue)
    incoming = call("incoming")
    queue.add(incoming)
    queue.take(1.0)
    queue.finish(incoming, delivered=False, now=1.9)
    incoming.attempts.expire()
    queue.add(news("probe", 1.9))
    assert taken(queue, 2.0) == ["probe"]


def test_failures_between_successes_do_not_open_it():
    queue = make(failures=2)
    for delivered in (False, True) * 5:
        queued = news("x")
        queue.add(queued)
        assert taken(queue, 0.0) == ["x"]
        queue.finish(queued, delivered=delivered, permanent=True, now=0.0)


def test_the_queue_is_bounded_for_other_events_and_never_for_a_ringing_phone():
    queue = make(urgent=1, waiting=2, ordinary=0)
    assert [queue.add(news("x")) for _ in range(3)] == [True, True, False]
    assert all(queue.add(call("c")) for _ in range(10))


def test_what_failed_waits_elsewhere_once_half_of_the_places_are_taken():
    """Else what is due in six hours would keep out what is due now."""
    queue, failed, ringing = make(waiting=4), news("failed"), call("ringing")
    queue.add(failed)
    queue.add(ringing)
    queue.take(0.0)
    assert not queue.is_crowded(failed)
    for _ in range(2):
        queue.add(news("x"))
    assert queue.is_crowded(failed)
    assert not queue.is_crowded(ringing)
