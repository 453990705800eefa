"""Many INVITEs at one time: each has its 100 before anybody is told of the second, and a leg that is over is let go."""

import asyncio
import gc
import logging
import socket
import time
import weakref

import pytest
import uvloop

from offhook.clock import SystemClock
from offhook.sip import datagrams
from offhook.sip.endpoint import Endpoint, EndpointConfig, LegListener
from offhook.sip.transaction import TimerValues

OFFER = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
INVITE = """\
INVITE sip:proj@127.0.0.1 SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{number}
Max-Forwards: 70
From: <sip:a@127.0.0.1>;tag={number}
To: <sip:proj@127.0.0.1>
Call-ID: {number}@127.0.0.1
CSeq: 1 INVITE
Contact: <sip:a@127.0.0.1:{port}>
Content-Length: 0

"""


class Ringer(LegListener):
    pass


def ring_slowly(leg):
    leg.listener = Ringer()
    leg.ring()
    time.sleep(0.002)


async def send_burst(count):
    """Return the statuses that came back, in order."""
    endpoint = Endpoint(EndpointConfig(("udp:127.0.0.1:0",)), clock=SystemClock(), on_invite=ring_slowly)
    await endpoint.start()
    statuses = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trunk:
        trunk.bind(("127.0.0.1", 0))
        trunk.setblocking(False)
        for number in range(count):
            text = INVITE.format(number=number, port=trunk.getsockname()[1])
            trunk.sendto(text.replace("\n", "\r\n").encode(), ("127.0.0.1", endpoint.addresses[0].port))
        async with asyncio.timeout(30):
            while len(statuses) < 2 * count:
                answer = await asyncio.get_running_loop().sock_recv(trunk, 4096)
                statuses.append(answer.split()[1].decode())
    await endpoint.close()
    return statuses


def test_the_100s_of_a_burst_leave_before_its_second_call_is_looked_at():
    # On the loop that the product runs on: it takes all that a socket has in one turn.
    statuses = uvloop.run(send_burst(10))
    assert sorted(statuses) == ["100"] * 10 + ["180"] * 10
    assert statuses[:9] == ["100"] * 9 or statuses.index("180", statuses.index("180") + 1) >= 11


async def receive(trunk, count):
    """Return that many datagrams."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        return [(await loop.sock_recv(trunk, 4096)).decode() for _ in range(count)]


async def test_a_call_at_work_lets_new_invites_in_by_reading_what_waits():
    legs = []

    def ring(leg):
        legs.append(leg)
        leg.listener = Ringer()
        leg.ring()

    endpoint = Endpoint(EndpointConfig(("udp:127.0.0.1:0",)), clock=SystemClock(), on_invite=ring)
    await endpoint.start()
    address = ("127.0.0.1", endpoint.addresses[0].port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trunk:
        trunk.bind(("127.0.0.1", 0))
        trunk.setblocking(False)
        first, second = (
            INVITE.format(number=number, port=trunk.getsockname()[1]).replace("\n", "\r\n").encode()
            for number in (1, 2)
        )
        trunk.sendto(first, address)
        await receive(trunk, 2)
        # From here to the next await the loop has no turn: as in a call that is being opened.
        trunk.sendto(second, address)
        trunk.sendto(first.replace(b"INVITE", b"CANCEL"), address)
        legs[0].read_waiting()
        came = [trunk.recv(4096).decode() for _ in range(3)]
        assert [(text.split()[1], text.split("CSeq: ")[1].split("\r\n")[0]) for text in came] == [
            ("100", "1 INVITE"), ("200", "1 CANCEL"), ("487", "1 INVITE"),
        ]  # fmt: skip
        # The leg is ahead of its listener, and the second call is told of in its turn.
        assert (legs[0].state, len(legs)) == ("ended", 1)
        await receive(trunk, 1)
        assert len(legs) == 2
    await endpoint.close()


async def test_datagrams_that_cannot_be_sent_cost_nothing_else():
    received = []
    bound = datagrams.DatagramSocket(
        "127.0.0.1", 0, lambda data, to, source: received.append((data, to, source))
    )
    bound.send(b"to no port", ("127.0.0.1", 70_000))
    bound.send(b"x" * 70_000, bound.address)
    bound.send(b"to nobody", ("127.0.0.1", 1))
    bound.send(b"y" * 60_000, bound.address)
    async with asyncio.timeout(30):
        while not received:
            await asyncio.sleep(0)
    assert received == [(b"y" * 60_000, bound.address, bound.address)]
    bound.close()
    bound.close()
    bound.send(b"after the end", ("127.0.0.1", 1))
    bound.read()


async def test_a_reader_that_closes_the_socket_gets_nothing_more():
    received = []

    def close(data, to, source):
        received.append(data)
        bound.close()

    bound = datagrams.DatagramSocket("127.0.0.1", 0, close)
    bound.send(b"one", bound.address)
    bound.send(b"two", bound.address)
    async with asyncio.timeout(30):
        while not received:
            await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert received == [b"one"]


class Holder(LegListener):
    """Holds its leg, which holds it."""

    def __init__(self, leg):
        self.leg = leg
        self.ended = asyncio.Event()
        leg.listener = self

    def leg_ended(self, leg, ended):
        self.ended.set()

    def leg_released(self, leg):
        leg.listener = None


@pytest.mark.parametrize("who_hangs_up", ["caller", "callee"])
async def test_a_call_that_came_in_and_is_over_needs_no_collector(who_hangs_up):
    timers = TimerValues(t1=0.005, t2=0.02, t4=0.02)
    callees = []

    def answer(leg):
        callees.append(Holder(leg))
        leg.trace = lambda trace: None
        leg.ring()
        leg.answer(OFFER)

    called = Endpoint(
        EndpointConfig(("udp:127.0.0.1:0",), timers=timers), clock=SystemClock(), on_invite=answer
    )
    caller = Endpoint(EndpointConfig(("udp:127.0.0.1:0",), timers=timers), clock=SystemClock())
    await called.start()
    await caller.start()
    gc.collect()
    gc.disable()
    try:
        leg = caller.invite(
            f"sip:proj@127.0.0.1:{called.addresses[0].port}", from_uri="sip:a@127.0.0.1", sdp=OFFER
        )
        calling = Holder(leg)
        async with asyncio.timeout(30):
            while leg.state != "confirmed" or not callees or callees[0].leg.state != "confirmed":
                await asyncio.sleep(0.005)
            (leg if who_hangs_up == "caller" else callees[0].leg).hangup()
            await calling.ended.wait()
            await callees[0].ended.wait()
        watched = [weakref.ref(thing) for thing in (callees[0], callees[0].leg, callees[0].leg._usage)]
        callees.clear()
        async with asyncio.timeout(30):
            while any(ref() is not None for ref in watched):
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
        await caller.close()
        await called.close()


async def test_a_small_receive_buffer_is_said_once_with_the_remedy(monkeypatch, caplog):
    monkeypatch.setattr(datagrams, "RECEIVE_BUFFER", 1 << 30)
    endpoint = Endpoint(EndpointConfig(("udp:127.0.0.1:0", "udp:127.0.0.1:0")), clock=SystemClock())
    with caplog.at_level(logging.INFO, "offhook.sip"):
        await endpoint.start()
    await endpoint.close()
    said = [record.getMessage() for record in caplog.records if record.event == "sip.udp.buffer"]
    assert len(said) == 1
    assert f"sysctl -w net.core.rmem_max={1 << 30}" in said[0]


async def test_a_buffer_as_large_as_asked_for_is_no_news(monkeypatch, caplog):
    monkeypatch.setattr(datagrams, "RECEIVE_BUFFER", 65536)
    endpoint = Endpoint(EndpointConfig(("udp:127.0.0.1:0",)), clock=SystemClock())
    with caplog.at_level(logging.INFO, "offhook.sip"):
        await endpoint.start()
    await endpoint.close()
    assert not [record for record in caplog.records if getattr(record, "event", "") == "sip.udp.buffer"]


@pytest.fixture(autouse=True)
def collector():
    yield
    gc.enable()
