"""From hops to a flow, with sockets and a zone that the test makes up."""

import asyncio
import errno

import pytest

from offhook.sip.flow import Flow
from offhook.sip.route import MAX_TARGETS, Hop, Target
from offhook.sip.wayfinder import Wayfinder
from offhook.sip.ways import Reach

US = ("203.0.113.1", 5061)
ROUTE = Hop("tls", "192.0.2.1", 5061, "Record-Route", secure=True)
NAMED = Hop("tls", "edge.example.com", None, "Record-Route", secure=True)


class Resolver:
    """Knows one name with five addresses."""

    async def resolve(self, hop):
        if hop.host == "edge.example.com":
            return [Target(hop.transport, f"192.0.2.{n}", 5061, hop.host) for n in range(10, 15)]
        return [Target(hop.transport, hop.host, hop.port, hop.host)]


class Sockets:
    def __init__(self, *, works=(), hangs=False):
        self.works, self.hangs = works, hangs
        self.dialled = []

    def udp_flow(self, target):
        return Flow("udp", US, (target.host, target.port))

    async def connect(self, target, *, tls_hostname):
        self.dialled.append((target.host, tls_hostname))
        if self.hangs:
            await asyncio.sleep(60)
        if target.host not in self.works:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.1', 5061)")
        return Flow("tls", US, (target.host, target.port), 1)


async def find(sockets, *hops, **options):
    reach = Reach(1, hops, "198.51.100.7", **options)
    return await Wayfinder(sockets, Resolver()).find(reach)


@pytest.mark.parametrize(
    ("hop", "trunk", "name"),
    [
        (ROUTE, "pstn.example.com", "pstn.example.com"),
        (ROUTE, "", "192.0.2.1"),
        (NAMED, "pstn.example.com", "edge.example.com"),
    ],
)
async def test_a_bare_address_is_checked_by_the_trunks_name_and_a_name_by_itself(hop, trunk, name):
    sockets = Sockets(works=("192.0.2.1", "192.0.2.10"))
    await find(sockets, hop, tls_hostname=trunk)
    assert sockets.dialled[0][1] == name


async def test_three_targets_over_all_searches_of_one_request():
    sockets = Sockets()
    first = await find(sockets, NAMED)
    assert first.flow is None
    assert len(first.attempts) == len(first.tried) == MAX_TARGETS
    again = await find(sockets, NAMED, tried=first.tried)
    assert again.attempts == ()
    assert len(sockets.dialled) == MAX_TARGETS


async def test_what_was_tried_is_not_tried_again_and_others_says_what_is_left():
    sockets = Sockets(works=("192.0.2.11", "192.0.2.12"))
    first = await find(sockets, NAMED)
    assert (first.flow.remote[0], first.others) == ("192.0.2.11", True)
    second = await find(sockets, NAMED, tried=first.tried)
    assert (second.flow.remote[0], second.others) == ("192.0.2.12", False)


async def test_an_attempt_says_transport_address_rule_and_the_systems_word():
    way = await find(Sockets(), ROUTE)
    (attempt,) = way.attempts
    assert str(attempt) == "tls 192.0.2.1:5061 from Record-Route: Connection refused"
    assert attempt.errno == errno.ECONNREFUSED


async def test_the_time_for_all_of_it_is_bounded_and_the_hop_named():
    way = await find(Sockets(hangs=True), ROUTE, timeout=0.02)
    assert [str(one) for one in way.attempts] == [
        "tls 192.0.2.1:5061 from Record-Route: no way found within 0.02 s"
    ]


async def test_an_address_that_a_peer_must_not_name_is_not_dialled():
    sockets = Sockets(works=("127.0.0.1",))
    way = await find(sockets, Hop("tcp", "127.0.0.1", 5060, "Record-Route"))
    assert sockets.dialled == []
    assert "not allowed: 127.0.0.1 is our own host's loopback address" in way.attempts[0].error


async def test_a_fault_of_ours_is_an_answer_too(caplog):
    class Broken(Resolver):
        async def resolve(self, hop):
            raise KeyError(hop)

    way = await Wayfinder(Sockets(), Broken()).find(Reach(1, (ROUTE,), ""))
    assert way.flow is None
    assert "internal fault: KeyError" in str(way.attempts[0])
    assert "reaching failed" in caplog.text
