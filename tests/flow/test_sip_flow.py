"""Two SIP stacks joined by a seeded network that loses, delays, repeats and reorders. Time is a number."""

import heapq
import itertools
import random
from collections import Counter

import pytest

from offhook.sip.events import (
    Answered,
    Confirmed,
    Ended,
    Offered,
    ReferUpdated,
    Refused,
    Replied,
    Requested,
)
from offhook.sip.flow import Flow
from offhook.sip.stack import Incoming, Released, Stack, StackConfig, Transmit, UsageEvent

CALLER = ("192.0.2.1", 5060)
CALLEE = ("192.0.2.2", 5060)
SDP = b"v=0\r\n"
ALLOW = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "NOTIFY", "INFO", "UPDATE", "REFER")


class World:
    """The network, the clock and the two users behind the stacks."""

    def __init__(self, seed, *, loss, delay=(0.01, 0.3), duplicate=0.0):
        self.random = random.Random(seed)
        self.loss, self.delay, self.duplicate = loss, delay, duplicate
        self.now = 0.0
        self.queue = []
        self.order = itertools.count()
        tokens = itertools.count(1)
        self.stacks = {}
        for host, port in (CALLER, CALLEE):
            stack = Stack(StackConfig(allow=ALLOW), new_token=lambda: f"{next(tokens):08x}")
            stack.listen("udp", host, port)
            self.stacks[(host, port)] = stack
        self.caller, self.callee = self.stacks[CALLER], self.stacks[CALLEE]
        self.events = {CALLER: Counter(), CALLEE: Counter()}
        self.on_event = lambda side, usage, event: None
        self.on_incoming = lambda usage: None
        self.sent = self.glares = 0

    def at(self, delay, action):
        heapq.heappush(self.queue, (self.now + delay, next(self.order), action))

    def place_call(self):
        return self.caller.invite(
            f"sip:bob@{CALLEE[0]}", from_uri="sip:alice@example.com", sdp=SDP, now=self.now
        )

    def run(self, until=1e9):
        self.flush()
        while True:
            timers = [t for s in self.stacks.values() if (t := s.next_timer()) is not None]
            pending = [self.queue[0][0]] if self.queue else []
            due = min(timers + pending, default=None)
            if due is None or due > until:
                return
            self.now = max(self.now, due)
            while self.queue and self.queue[0][0] <= self.now:
                heapq.heappop(self.queue)[2]()
            for stack in self.stacks.values():
                stack.handle_timer(now=self.now)
            self.flush()

    def flush(self):
        busy = True
        while busy:
            busy = False
            for side, stack in self.stacks.items():
                for output in stack.outputs():
                    busy = True
                    self.carry_out(side, output)

    def carry_out(self, side, output):
        match output:
            case Transmit(flow, data):
                self.sent += 1
                self.glares += data.startswith(b"SIP/2.0 491")
                copies = 2 if self.random.random() < self.duplicate else 1
                for _ in range(copies):
                    if self.random.random() >= self.loss:
                        self.at(self.random.uniform(*self.delay), lambda: self.deliver(flow, data))
            case Incoming(usage):
                self.events[side]["Incoming"] += 1
                self.on_incoming(usage)
            case UsageEvent(usage, event):
                self.events[side][type(event).__name__] += 1
                self.on_event(side, usage, event)
            case Released():
                pass
            case _:
                pytest.fail(f"a literal UDP address needs no {output}")

    def deliver(self, flow, data):
        self.stacks[flow.remote].receive(data, Flow("udp", flow.remote, flow.local), now=self.now)


@pytest.mark.parametrize("who_ends", ["caller", "callee", "both"])
def test_every_call_is_answered_once_and_ended_on_both_sides(who_ends):
    calls = 300
    world = World(f"loss {who_ends}", loss=0.1, duplicate=0.05)
    ended = Counter()

    def incoming(usage):
        usage.ring(now=world.now)
        world.at(world.random.uniform(0.0, 3.0), lambda: usage.answer(SDP, now=world.now))

    def event(side, usage, event):
        hangs_up = (isinstance(event, Answered) and who_ends != "callee") or (
            isinstance(event, Confirmed) and who_ends != "caller"
        )
        if hangs_up:
            world.at(2.0, lambda: usage.hangup(now=world.now))
        elif isinstance(event, Ended):
            ended[id(usage)] += 1

    world.on_incoming, world.on_event = incoming, event
    usages = []
    for number in range(calls):
        world.at(number * 0.01, lambda: usages.append(world.place_call()))
    world.run()

    assert world.events[CALLEE]["Incoming"] == calls
    assert world.events[CALLER]["Answered"] == calls
    assert world.events[CALLER]["Ended"] == world.events[CALLEE]["Ended"] == calls
    assert set(ended.values()) == {1}
    assert {usage.state for usage in usages} == {"ended"}
    for stack in world.stacks.values():
        assert (stack.call_count, stack.transaction_count) == (0, 0)


def test_a_refused_call_is_refused_once_under_loss():
    world = World("refuse", loss=0.1)
    world.on_incoming = lambda usage: usage.refuse(486, now=world.now)
    refusals = []

    def event(side, usage, event):
        if isinstance(event, Refused):
            refusals.append(event.response.status)

    world.on_event = event
    for number in range(200):
        world.at(number * 0.01, world.place_call)
    world.run()
    assert world.events[CALLEE]["Incoming"] == 200
    assert refusals == [486] * 200
    assert world.caller.transaction_count == world.callee.transaction_count == 0


def test_cancel_and_answer_cross_without_leaving_a_call_behind():
    """Whichever wins, both sides end; nobody keeps a call that the other has not."""
    world = World("cross", loss=0.1)
    ends = Counter()

    def incoming(usage):
        usage.ring(now=world.now)
        world.at(world.random.uniform(0.4, 0.9), lambda: usage.answer(SDP, now=world.now))

    def place():
        usage = world.place_call()
        world.at(world.random.uniform(0.4, 0.9), lambda: usage.hangup(now=world.now))

    def event(side, usage, event):
        ends[side, type(event).__name__] += 1

    world.on_incoming, world.on_event = incoming, event
    for number in range(300):
        world.at(number * 0.01, place)
    world.run()
    # Callers: each is refused (487) or ended; callees: each cancelled or ended.
    assert ends[CALLER, "Refused"] + ends[CALLER, "Ended"] == 300
    assert ends[CALLEE, "Cancelled"] + ends[CALLEE, "Ended"] == world.events[CALLEE]["Incoming"] <= 300
    assert ends[CALLER, "Refused"] > 20
    assert ends[CALLER, "Ended"] > 20
    for stack in world.stacks.values():
        assert (stack.call_count, stack.transaction_count) == (0, 0)


def test_transfer_under_loss_has_one_outcome():
    world = World("refer", loss=0.1)
    outcomes = Counter()
    replies = Counter()

    def incoming(usage):
        usage.answer(SDP, now=world.now)

    def notify(usage, line):
        usage.request(
            "NOTIFY",
            now=world.now,
            headers=[("Event", "refer"), ("Subscription-State", "active;expires=60")],
            body=line,
            content_type="message/sipfrag",
        )

    def event(side, usage, event):
        match event:
            case Confirmed():
                usage.refer("tel:+15551234567", now=world.now)
            case Requested(request):
                assert request.method == "REFER"
                usage.respond(request, 202, now=world.now)
                notify(usage, b"SIP/2.0 100 Trying\r\n")
                world.at(1.0, lambda: notify(usage, b"SIP/2.0 200 OK\r\n"))
            case ReferUpdated(update) if update.kind not in ("accepted", "progress"):
                outcomes[update.kind] += 1
                usage.hangup(now=world.now)
            case Replied(_, response) if side == CALLEE:
                replies[response.status] += 1

    world.on_incoming, world.on_event = incoming, event
    for number in range(200):
        world.at(number * 0.01, world.place_call)
    world.run()
    assert outcomes == {"completed": 200}
    assert replies == {202: 200}
    assert world.events[CALLER]["Ended"] == world.events[CALLEE]["Ended"] == 200


@pytest.mark.parametrize("seed", range(4))
def test_offers_that_cross_under_loss_all_come_through(seed):
    """Both sides offer at random moments: every offer has one outcome, and 491 is not the last word."""
    calls, each = 60, 3
    world = World(f"offers {seed}", loss=0.1, duplicate=0.05)
    outcomes, offered = Counter(), Counter()

    def offer(usage):
        if usage.state == "confirmed":
            usage.request(
                world.random.choice(("INVITE", "UPDATE")),
                now=world.now,
                body=SDP,
                content_type="application/sdp",
            )
            offered["sent"] += 1

    def event(side, usage, event):
        match event:
            case Answered() | Confirmed():
                for _ in range(each):
                    world.at(world.random.uniform(1.0, 4.0), lambda: offer(usage))
                if side == CALLER:
                    world.at(100.0, lambda: usage.hangup(now=world.now))
            case Offered(request):
                answer = lambda: usage.respond(  # noqa: E731 - said when it is due
                    request, 200, now=world.now, body=SDP, content_type="application/sdp"
                )
                world.at(world.random.uniform(0.0, 0.3), answer)
            case Replied(_, response):
                outcomes[response.status if response else None] += 1

    world.on_incoming, world.on_event = lambda usage: usage.answer(SDP, now=world.now), event
    for number in range(calls):
        world.at(number * 0.01, world.place_call)
    world.run()
    assert offered["sent"] >= calls * each * 2 * 0.95
    assert sum(outcomes.values()) == offered["sent"]
    assert outcomes[200] >= offered["sent"] * 0.98
    assert world.glares > 20
    assert world.events[CALLER]["Ended"] == world.events[CALLEE]["Ended"] == calls
    for stack in world.stacks.values():
        assert (stack.call_count, stack.transaction_count) == (0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_a_bye_at_any_moment_leaves_nothing_behind(seed):
    """Either side hangs up while it rings, is answered, offers, or is being transferred."""
    calls = 150
    world = World(f"bye {seed}", loss=0.1, duplicate=0.05)
    usages = []

    def busy(usage):
        if usage.state == "confirmed":
            usage.request("INVITE", now=world.now, body=SDP, content_type="application/sdp")
            if usage.role == "uas":
                usage.refer("tel:+15551234567", now=world.now)

    def incoming(usage):
        usages.append(usage)
        usage.ring(now=world.now)
        world.at(0.5, lambda: usage.answer(SDP, now=world.now) if usage.state == "early" else None)
        world.at(world.random.uniform(0.0, 3.0), lambda: usage.hangup(now=world.now))

    def place():
        usages.append(usage := world.place_call())
        world.at(world.random.uniform(0.0, 3.0), lambda: usage.hangup(now=world.now))

    def event(side, usage, event):
        match event:
            case Answered() | Confirmed():
                world.at(world.random.uniform(0.0, 1.0), lambda: busy(usage))
            case Offered(request) | Requested(request):
                world.at(0.2, lambda: usage.respond(request, 200, now=world.now))

    world.on_incoming, world.on_event = incoming, event
    for number in range(calls):
        world.at(number * 0.01, place)
    world.run()
    assert {usage.state for usage in usages} == {"ended"}
    for stack in world.stacks.values():
        assert (stack.call_count, stack.transaction_count) == (0, 0)


def test_a_callee_that_never_hears_the_ack_hangs_up_after_32_seconds():
    world = World("no ack", loss=0.0, delay=(0.01, 0.01))
    ended = []

    def incoming(usage):
        usage.answer(SDP, now=world.now)
        world.stacks[CALLER] = Deaf(world.caller)

    def event(side, usage, event):
        if side == CALLEE and isinstance(event, Ended):
            ended.append((round(world.now, 2), event.ended.cause))

    world.on_incoming, world.on_event = incoming, event
    world.place_call()
    before = world.sent
    world.run(until=200)
    assert ended == [(32.01, "no_ack")]
    # 200 at 0, 0.5, 1.5, 3.5, 7.5 and every 4 s: 11 times; BYE at 32 and its own retransmissions.
    assert world.sent - before >= 11 + 10


class Deaf:
    """A stack that takes nothing any more, as after a crash."""

    def __init__(self, stack):
        self.call_count = 0

    def next_timer(self):
        return None

    def handle_timer(self, *, now):
        pass

    def outputs(self):
        return []

    def receive(self, data, flow, *, now):
        pass
