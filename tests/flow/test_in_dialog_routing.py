"""
Which way requests go back to a carrier, on real sockets: its connection, its routes, its Contact, its DNS.

The carrier writes and reads raw bytes (`testbed.trunk`, `testbed.edge`); ours is a whole SIP endpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from types import SimpleNamespace

import httpx2
import pytest

from offhook.certificates import client_context, development_certificate, server_context
from offhook.clock import SystemClock
from offhook.sip.endpoint import Endpoint, EndpointConfig, LegListener
from offhook.sip.refer import ReferUnsendable
from offhook.sip.resolver import Resolver
from offhook.sip.transaction import TimerValues
from offhook.sip.transport import TransportLimits
from offhook.trace import RoutingDecision
from testbed import DeveloperApp, Node
from testbed.edge import Edge
from testbed.invites import TWILIO, bend, write
from testbed.trunk import Trunk, TrunkCall, establish

SDP = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
TARGET = "tel:+14155550123"
LARGE = f"sip:{'a' * 1300}@example.net"
NAME = "edge.example.net"
BEHIND = "<sip:10.20.30.40;r2=on;lr>"
"The second hop's inner face, which nobody but the edge can reach."


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """One authority; our certificate for addresses, and the edge's for its name alone."""
    ours, theirs = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")
    us = development_certificate(ours, ("localhost", "127.0.0.1"))
    for name in ("ca.pem", "ca.key"):
        shutil.copy(ours / name, theirs)
    edge = development_certificate(theirs, (NAME,))
    return us, server_context(us), client_context(us.ca), server_context(edge)


class Quiet(LegListener):
    """Takes what comes; the carrier's side is what these tests look at."""


class Us:
    """An endpoint that answers every call; `zone` is its DNS."""

    def __init__(self, certificates, transport, *, zone=None, tls_hostname="", timers=None, limits=None):
        self.ca = certificates[0].ca
        self.transport = transport
        self.legs = asyncio.Queue()
        self.tls_hostname = tls_hostname
        self.endpoint = Endpoint(
            EndpointConfig(
                (f"{transport}:127.0.0.1:0",),
                tls=certificates[1],
                tls_client=certificates[2],
                timers=timers or TimerValues(),
                limits=limits or TransportLimits(),
            ),
            clock=SystemClock(),
            on_invite=self._answer,
            resolver=Resolver(lambda *question: self._query(zone or {}, question)),
        )

    async def __aenter__(self):
        await self.endpoint.start()
        return self

    async def __aexit__(self, *_):
        await self.endpoint.close()

    @staticmethod
    async def _query(zone, question):
        return zone.get(question, [])

    def _answer(self, leg):
        leg.listener = Quiet()
        leg.traces = []
        leg.trace = leg.traces.append
        leg.tls_hostname = self.tls_hostname
        leg.answer(SDP)
        self.legs.put_nowait(leg)

    @contextlib.asynccontextmanager
    async def called(self, *routes, contact=None):
        """A confirmed call whose INVITE had these Record-Routes."""
        remote = ("127.0.0.1", self.endpoint.addresses[0].port)
        async with Trunk(remote, self.transport, ca=self.ca) as trunk:
            lines = "\n".join(f"Record-Route: {route}" for route in routes)
            invite = write(TWILIO, trunk, "proj_test", routes=lines)
            if contact is not None:
                invite = bend(invite, ("<sip:+10987654321@172.25.75.240:5060;transport=udp>", contact))
            call = TrunkCall(trunk, invite)
            trunk.send(invite)
            call.ok = await trunk.expect("SIP/2.0 200")
            call.ack()
            leg = await asyncio.wait_for(self.legs.get(), 15)
            async with asyncio.timeout(15):
                while leg.state != "confirmed":
                    await asyncio.sleep(0.005)
            yield call, leg

    async def forgotten(self):
        """Wait until every connection is gone."""
        async with asyncio.timeout(15):
            while self.endpoint._transport._connections:
                await asyncio.sleep(0.005)


def decisions(leg):
    return [item.text for item in leg.traces if isinstance(item, RoutingDecision)]


async def hang_up_the_line(trunk, us):
    trunk._writer.transport.abort()
    await us.forgotten()


def srv(port, priority):
    return SimpleNamespace(priority=priority, weight=1, port=port, target="one.example.net.")


def zone(transport, *ports):
    return {
        (f"_sip._{transport}.{NAME}", "SRV"): [srv(port, at) for at, port in enumerate(ports)],
        ("one.example.net", "A"): [SimpleNamespace(address="127.0.0.1")],
    }


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# The INVITE's own connection, and what the Routes say meanwhile.


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_all_requests_go_by_the_invites_connection_with_both_routes_as_they_came(
    certificates, transport
):
    """The Routes name places that cannot be reached: a stack that dials would fail here."""
    routes = [f"<sip:192.0.2.1:5061;transport={transport};r2=on;lr>", f"{BEHIND};x=%41~'b"]
    async with Us(certificates, transport) as us, us.called(*routes) as (call, leg):
        asked = asyncio.create_task(leg.refer(TARGET))
        refer = await call.trunk.expect("REFER ")
        call.trunk.answer(refer, "202 Accepted")
        assert (await asked).status == 202
        offered = asyncio.create_task(leg.request("INVITE", body=SDP, content_type="application/sdp"))
        again = await call.trunk.expect("INVITE ")
        call.trunk.answer(again, "200 OK", f"Contact: <{call.contact}>")
        assert (await offered).status == 200
        ack = await call.trunk.expect("ACK ")
        leg.hangup()
        bye = await call.trunk.expect("BYE ")
        assert [message.start for message in (refer, again, ack, bye)] == [
            f"{method} {call.contact} SIP/2.0" for method in ("REFER", "INVITE", "ACK", "BYE")
        ]
        assert all(message.all("Route") == routes for message in (refer, again, ack, bye))
        assert refer.cseq < again.cseq == ack.cseq < bye.cseq
        assert decisions(leg)[0].startswith("sent REFER by the INVITE's connection")


async def test_a_strict_router_is_addressed_and_the_contact_comes_last(certificates):
    """RFC 3261 sections 12.2.1.1 and 16.12."""
    async with Us(certificates, "tcp") as us:
        async with us.called("<sip:192.0.2.1:5070;ftag=a>", "<sip:192.0.2.9>") as (call, leg):
            leg.hangup()
            bye = await call.trunk.expect("BYE ")
        assert bye.start == "BYE sip:192.0.2.1:5070;ftag=a SIP/2.0"
        assert bye.all("Route") == ["<sip:192.0.2.9>", f"<{call.contact}>"]


async def test_a_private_contact_on_udp_is_reached_by_the_source(certificates):
    contact = "<sip:x@172.25.75.240:5060>"
    async with Us(certificates, "udp") as us, us.called(contact=contact) as (call, leg):
        leg.hangup()
        bye = await call.trunk.expect("BYE ")
        call.trunk.answer(bye, "200 OK")
        assert bye.start == "BYE sip:x@172.25.75.240:5060 SIP/2.0"
        why = "from INVITE's source address; Contact host 172.25.75.240 is behind a NAT"
        assert decisions(leg)[0].endswith(why)


# When the connection is gone.


@pytest.mark.parametrize("end", ["silently", "with a reset"])
async def test_a_quiet_connection_that_the_edge_closed_is_dialled_again(certificates, end):
    """Carriers close TLS connections after two minutes, without a close_notify."""
    async with (
        Edge("tls", tls=certificates[3], status="202 Accepted") as edge,
        Us(certificates, "tls", tls_hostname=NAME) as us,
        us.called(route := f"<sip:127.0.0.1:{edge.port};transport=tls;r2=on;lr>", BEHIND) as (call, leg),
    ):
        if end == "silently":
            with socket.socket(fileno=os.dup(call.trunk._writer.get_extra_info("socket").fileno())) as below:
                below.shutdown(socket.SHUT_WR)
            await us.forgotten()
        else:
            await hang_up_the_line(call.trunk, us)
        assert (await leg.refer(TARGET)).status == 202
        arrival = await edge.next()
        assert arrival.request.start == f"REFER {call.contact} SIP/2.0"
        assert arrival.request.all("Route") == [route, BEHIND]
        expected = (
            f"sent REFER to tls 127.0.0.1:{edge.port} from Record-Route; the INVITE's connection is gone"
        )
        assert decisions(leg) == [expected]


@pytest.mark.parametrize(
    ("name", "fault"), [("", "IP address mismatch"), ("pstn.example.org", "Hostname mismatch")]
)
async def test_a_certificate_that_does_not_show_the_trunks_name_ends_it(certificates, name, fault):
    async with (
        Edge("tls", tls=certificates[3]) as edge,
        Us(certificates, "tls", tls_hostname=name) as us,
        us.called(f"<sip:127.0.0.1:{edge.port};transport=tls;lr>") as (call, leg),
    ):
        await hang_up_the_line(call.trunk, us)
        with pytest.raises(ReferUnsendable) as caught:
            await leg.refer(TARGET)
        assert caught.value.hop == f"127.0.0.1:{edge.port} from Record-Route"
        assert fault in caught.value.error
        assert edge.arrivals == []
        assert leg.state == "confirmed"


async def test_a_connect_that_hangs_is_given_up_and_named(certificates):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        port = full.getsockname()[1]
        for _ in range(3):  # what the kernel accepts by itself; after that, attempts are dropped
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        limits = TransportLimits(connect_timeout=0.3)
        async with (
            Us(certificates, "tcp", limits=limits) as us,
            us.called(f"<sip:127.0.0.1:{port};transport=tcp;lr>") as (call, leg),
        ):
            await hang_up_the_line(call.trunk, us)
            with pytest.raises(ReferUnsendable) as caught:
                await leg.refer(TARGET)
            text = f"tcp 127.0.0.1:{port} from Record-Route: connect timed out after 0.3 s"
            assert [str(attempt) for attempt in caught.value.attempts] == [text]
            assert caught.value.errno == 110
            assert decisions(leg)[0] == text


async def test_a_route_to_a_port_of_the_system_is_not_followed(certificates):
    """A Record-Route decides where we open connections: not to an SSH server."""
    async with Us(certificates, "tcp") as us, us.called("<sip:127.0.0.1:22;transport=tcp;lr>") as (call, leg):
        await hang_up_the_line(call.trunk, us)
        with pytest.raises(ReferUnsendable, match="unreachable") as caught:
            await leg.refer(TARGET)
        assert "not allowed: port 22 is below 1024" in caught.value.error


# DNS: the next target when one fails.


async def test_srv_of_tcp_the_next_target_when_one_refuses(certificates):
    refused = closed_port()
    async with (
        Edge("tcp", status="202 Accepted") as edge,
        Us(certificates, "tcp", zone=zone("tcp", refused, edge.port)) as us,
        us.called(f"<sip:{NAME};transport=tcp;lr>") as (call, leg),
    ):
        await hang_up_the_line(call.trunk, us)
        assert (await leg.refer(TARGET)).status == 202
        assert decisions(leg) == [
            f"tcp 127.0.0.1:{refused} from Record-Route: Connection refused",
            f"sent REFER to tcp 127.0.0.1:{edge.port} from Record-Route; the INVITE's connection is gone",
        ]


async def test_srv_of_tcp_the_next_target_when_one_closes_without_an_answer(certificates):
    async with (
        Edge("tcp", deaf=True) as deaf,
        Edge("tcp", status="202 Accepted") as edge,
        Us(certificates, "tcp", zone=zone("tcp", deaf.port, edge.port)) as us,
        us.called(f"<sip:{NAME};transport=tcp;lr>") as (call, leg),
    ):
        await hang_up_the_line(call.trunk, us)
        assert (await leg.refer(TARGET)).status == 202
        assert (await edge.next()).request.start.startswith("REFER ")


async def test_srv_of_udp_the_next_target_when_one_is_silent(certificates):
    async with (
        Edge("udp", status=None) as silent,
        Edge("udp", status="202 Accepted") as edge,
        Us(certificates, "udp", zone=zone("udp", silent.port, edge.port), timers=TimerValues(t1=0.02)) as us,
        us.called(f"<sip:{NAME};transport=udp;lr>") as (_, leg),
    ):
        assert (await leg.refer(TARGET)).status == 202
        first, second = silent.arrivals[0].request, (await edge.next()).request
        assert first.cseq == second.cseq
        assert first.one("Via") != second.one("Via")
        assert len(silent.arrivals) == 3
        assert f"udp 127.0.0.1:{silent.port} from Record-Route: no answer within 0.1 s" in decisions(leg)


async def test_three_targets_at_most(certificates):
    ports = [closed_port() for _ in range(4)]
    async with (
        Us(certificates, "tcp", zone=zone("tcp", *ports)) as us,
        us.called(f"<sip:{NAME};transport=tcp;lr>") as (call, leg),
    ):
        await hang_up_the_line(call.trunk, us)
        with pytest.raises(ReferUnsendable) as caught:
            await leg.refer(TARGET)
        assert len(caught.value.attempts) == 3


# Size.


async def test_a_request_too_large_for_a_datagram_goes_by_tcp(certificates):
    async with (
        Edge("udp", "tcp", status="202 Accepted") as edge,
        Us(certificates, "udp") as us,
        us.called(f"<sip:127.0.0.1:{edge.port};lr>") as (_, leg),
    ):
        assert (await leg.refer(LARGE)).status == 202
        arrival = await edge.next()
        assert arrival.transport == "tcp"
        assert arrival.request.one("Via").startswith("SIP/2.0/TCP ")


async def test_it_goes_by_udp_when_nobody_takes_tcp(certificates):
    async with (
        Edge("udp", status="202 Accepted") as edge,
        Us(certificates, "udp") as us,
        us.called(f"<sip:127.0.0.1:{edge.port};lr>") as (_, leg),
    ):
        assert (await leg.refer(LARGE)).status == 202
        assert (await edge.next()).transport == "udp"
        assert decisions(leg)[0] == f"tcp 127.0.0.1:{edge.port} from Record-Route: Connection refused"


# The end of a node, and what its API says.


async def test_the_last_bye_is_sent_though_it_needs_a_new_connection(certificates):
    async with (
        Edge("tls", tls=certificates[3]) as edge,
        Us(certificates, "tls", tls_hostname=NAME) as us,
        us.called(f"<sip:127.0.0.1:{edge.port};transport=tls;lr>") as (call, leg),
    ):
        await hang_up_the_line(call.trunk, us)
        leg.hangup()
        assert await us.endpoint.settle(timeout=3)
        assert [arrival.request.start.split()[0] for arrival in edge.arrivals] == ["BYE"]


async def test_a_bye_that_nobody_answers_does_not_hold_the_end_up(certificates):
    async with Us(certificates, "udp") as us, us.called() as (call, leg):
        leg.hangup()
        await call.trunk.expect("BYE ")
        assert not await us.endpoint.settle(timeout=0.1)


@pytest.fixture
def own_node(tmp_path):
    with Node(tmp_path) as running:
        yield running


async def test_sigterm_sends_bye_on_a_new_connection_before_the_node_is_gone(own_node):
    async with Edge("tcp") as edge, DeveloperApp(own_node) as app:
        async with Trunk(own_node.sip["tcp"], "tcp") as trunk:
            routes = f"Record-Route: <sip:127.0.0.1:{edge.port};transport=tcp;lr>"
            await establish(trunk, app, write(TWILIO, trunk, app.seat.project, routes=routes))
        own_node._process.send_signal(signal.SIGTERM)
        arrival = await edge.next()
        assert arrival.request.start.startswith("BYE ")


async def test_the_api_names_hop_transport_and_errno(node, app):
    port = closed_port()
    async with Trunk(node.sip["tcp"], "tcp") as trunk:
        routes = f"Record-Route: <sip:127.0.0.1:{port};transport=tcp;lr>"
        _, call_id = await establish(trunk, app, write(TWILIO, trunk, app.seat.project, routes=routes))
    async with httpx2.AsyncClient(timeout=12) as client:
        response = await client.post(
            f"{node.base_url}/realtime/calls/{call_id}/refer",
            headers={"Authorization": f"Bearer {app.seat.api_key}"},
            json={"target_uri": TARGET},
        )
    details = response.json()["error"]["details"]
    assert response.status_code == 502
    assert details["hop"] == f"127.0.0.1:{port} from Record-Route"
    assert (details["transport"], details["errno"]) == ("tcp", 111)
    assert details["attempts"] == [f"tcp 127.0.0.1:{port} from Record-Route: Connection refused"]
    titles = [entry["title"] for entry in await node.timeline(app.seat, call_id) if entry["kind"] == "route"]
    assert details["attempts"][0] in titles
