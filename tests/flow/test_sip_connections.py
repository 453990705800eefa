"""Connections of an endpoint on loopback: opened once for all who want them, and never at the cost of others."""

import asyncio
import contextlib

import pytest

from offhook.clock import SystemClock
from offhook.sip.endpoint import Endpoint, EndpointConfig
from offhook.sip.route import Target
from offhook.sip.transport import TransportLimits

PATIENCE = 10.0
OPTIONS = (
    b"OPTIONS sip:x@y SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bKo\r\nFrom: <sip:a@b>;tag=1\r\n"
    b"To: <sip:x@y>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
)


@contextlib.asynccontextmanager
async def endpoint(**options):
    limits = options.pop("limits", TransportLimits())
    running = Endpoint(EndpointConfig(("tcp:127.0.0.1:0",), limits=limits), clock=SystemClock(), **options)
    await running.start()
    try:
        yield running
    finally:
        await running.close()


class Peer:
    """Accepts connections and counts them."""

    def __init__(self):
        self.connections = []

    async def __aenter__(self):
        async def accept(reader, writer):
            self.connections.append(writer)
            await reader.read()

        self._server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.target = Target("tcp", *self._server.sockets[0].getsockname(), "127.0.0.1")
        return self

    async def __aexit__(self, *_):
        for writer in self.connections:
            writer.close()
        self._server.close()


async def test_calls_that_want_one_connection_at_once_share_it():
    """An edge that restarts leaves all its calls without one in the same moment."""
    async with endpoint() as running, Peer() as peer:
        connect = running._transport.connect
        async with asyncio.timeout(PATIENCE):
            flows = await asyncio.gather(*(connect(peer.target, tls_hostname="") for _ in range(20)))
            assert len(set(flows)) == 1
            assert await connect(peer.target, tls_hostname="") == flows[0]
            while not peer.connections:
                await asyncio.sleep(0.005)
        assert len(peer.connections) == 1


async def test_one_that_gives_up_leaves_the_connection_to_the_others():
    async with endpoint() as running, Peer() as peer:
        connect = running._transport.connect
        hasty = asyncio.create_task(connect(peer.target, tls_hostname=""))
        patient = asyncio.create_task(connect(peer.target, tls_hostname=""))
        await asyncio.sleep(0)
        hasty.cancel()
        async with asyncio.timeout(PATIENCE):
            flow = await patient
        assert flow.remote == (peer.target.host, peer.target.port)


async def test_a_refused_connection_is_told_to_all_who_wait_and_tried_anew_later():
    async with endpoint() as running:
        async with Peer() as peer:
            target = peer.target
        connect = running._transport.connect
        outcomes = await asyncio.gather(
            *(connect(target, tls_hostname="") for _ in range(3)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {ConnectionRefusedError}
        with pytest.raises(ConnectionRefusedError):
            await connect(target, tls_hostname="")


async def test_a_connection_that_is_being_closed_is_not_given_out_again():
    async with endpoint() as running, Peer() as peer:
        connect = running._transport.connect
        async with asyncio.timeout(PATIENCE):
            first = await connect(peer.target, tls_hostname="")
            running._transport._connections[first.connection].abort()
            second = await connect(peer.target, tls_hostname="")
        assert second.connection != first.connection


async def test_a_flood_of_pings_costs_few_pongs_and_the_next_request_is_answered():
    async with endpoint() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.addresses[0].port)
        writer.write(b"\r\n\r\n" * 10_000 + OPTIONS)
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"SIP/2.0 ")
        pongs = head.removesuffix(b"SIP/2.0 ")
        assert pongs.replace(b"\r\n", b"") == b""
        assert 1 <= len(pongs) // 2 < 200
        writer.close()


async def test_a_fault_while_one_peer_is_judged_does_not_keep_the_next_one_out():
    judged = []

    def is_stranger(flow):
        judged.append(flow)
        if len(judged) == 1:
            raise RuntimeError("a fault of ours")
        return False

    async with endpoint(is_stranger=is_stranger) as running:
        for expected in (b"", b"\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.addresses[0].port)
            writer.write(b"\r\n\r\n")
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read(2) == expected
            writer.close()
        assert len(judged) > 1


def test_a_dead_peer_is_noticed_while_a_request_has_time_to_go_another_way():
    """DESIGN decision 5: a REFER has 8 s in all, and a connect 3 s of them."""
    limits = TransportLimits()
    assert limits.unacknowledged_timeout + limits.connect_timeout <= 8.0
