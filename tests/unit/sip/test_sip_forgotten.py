"""What a call leaves in the stack once it is over: nothing, however far its timers reached."""

import gc
import itertools
import weakref

import pytest

from offhook.sip.flow import Flow
from offhook.sip.message import create_response, parse_message
from offhook.sip.stack import Incoming, Stack, StackConfig, Transmit
from offhook.sip.timer_heap import TimerHeap

US, PEER = ("192.0.2.2", 5060), ("198.51.100.7", 5060)
UDP = Flow("udp", US, PEER)
TCP = Flow("tcp", US, (PEER[0], 40001), 1)


def request(method, cseq, *extra, tag="", flow=UDP, call_id="c1"):
    lines = [
        f"{method} sip:us@192.0.2.2 SIP/2.0",
        f"Via: SIP/2.0/{flow.transport.upper()} {PEER[0]}:5060;branch=z9hG4bK{method}{cseq}{call_id}",
        "From: <sip:alice@example.com>;tag=a",
        "To: <sip:us@example.com>" + (f";tag={tag}" if tag else ""),
        f"Call-ID: {call_id}",
        f"CSeq: {cseq} {method}",
        f"Contact: <sip:alice@{PEER[0]}>",
        *extra,
        "Content-Length: 0\r\n\r\n",
    ]
    return "\r\n".join(lines).encode()


def new_stack():
    tokens = itertools.count(1)
    stack = Stack(StackConfig(), new_token=lambda: f"{next(tokens):08x}")
    for transport in ("udp", "tcp"):
        stack.listen(transport, *US)
    stack.connection_opened(TCP)
    return stack


def take(stack):
    usages, sent = [], []
    for output in stack.outputs():
        if isinstance(output, Incoming):
            usages.append(output.usage)
        elif isinstance(output, Transmit):
            sent.append(parse_message(output.data))
    return usages, sent


def pass_time(stack, until):
    while (due := stack.next_timer()) is not None and due <= until:
        stack.handle_timer(now=due)
    stack.outputs()


@pytest.mark.parametrize("flow", [UDP, TCP])
@pytest.mark.parametrize("refresher", ["uac", "uas"])
@pytest.mark.parametrize("who_ends", ["peer", "us"])
def test_a_call_with_a_session_timer_is_let_go_long_before_the_timer(flow, refresher, who_ends):
    """Refreshes of 1800 s come 900 s later: a busy node would keep every call of a quarter of an hour."""
    stack = new_stack()
    timer = ("Supported: timer", f"Session-Expires: 1800;refresher={refresher}")
    stack.receive(request("INVITE", 1, *timer, flow=flow), flow, now=0.0)
    (usage,), _ = take(stack)
    usage.answer(b"v=0\r\n", now=0.0)
    tag = usage.dialog.local_tag
    stack.receive(request("ACK", 1, tag=tag, flow=flow), flow, now=0.1)
    stack.outputs()
    assert usage.session.next_timer() > 800
    if who_ends == "peer":
        stack.receive(request("BYE", 2, tag=tag, flow=flow), flow, now=1.0)
    else:
        usage.hangup(now=1.0)
        _, (bye,) = take(stack)
        stack.receive(bytes(create_response(bye, 200, to_tag="a")), flow, now=1.1)
    pass_time(stack, 40.0)
    assert stack.next_timer() is None
    assert (stack.call_count, stack.transaction_count) == (0, 0)
    known = weakref.ref(usage)
    del usage
    gc.collect()
    assert known() is None


class Machine:
    armed = None

    def __init__(self, at):
        self.at, self.calls = at, []

    def next_timer(self):
        return None if self.calls else self.at

    def handle_timer(self, *, now):
        self.calls.append(now)


def test_alarms_of_what_is_gone_do_not_pile_up_and_the_others_come_in_order():
    heap = TimerHeap()
    kept = []
    for number in range(20_000):
        machine = Machine(900.0 + number % 7)
        heap.arm(machine)
        if number % 1000 == 0:
            kept.append(machine)
        else:
            heap.disarm(machine)
        assert len(heap) <= 2500
    for now in (899.0, 900.0, 903.0, 1000.0):
        heap.handle_timer(now=now)
        assert all(bool(machine.calls) == (machine.at <= now) for machine in kept)
    assert (len(heap), heap.next_timer()) == (0, None)


def test_an_earlier_alarm_takes_the_place_of_a_later_one():
    heap, machine = TimerHeap(), Machine(10.0)
    heap.arm(machine)
    machine.at = 5.0
    heap.arm(machine)
    assert heap.next_timer() == 5.0
    heap.handle_timer(now=20.0)
    assert machine.calls == [20.0]
    assert len(heap) == 0
