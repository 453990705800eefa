"""Whole calls between two endpoints on real loopback sockets: UDP, TCP and TLS."""

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from offhook.clock import SystemClock
from offhook.sip.endpoint import Endpoint, EndpointConfig, LegListener
from offhook.sip.refer import ReferPending, ReferTimeout, ReferUnsendable
from offhook.sip.transport import TransportLimits
from offhook.trace import RoutingDecision, WireMessage

OFFER = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
ANSWER = OFFER.replace(b"4000", b"5000")
ALLOW = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "NOTIFY", "INFO", "UPDATE", "REFER")
PATIENCE = 5.0


class Recorder(LegListener):
    """Keeps what it was told, and answers REFER with 202."""

    def __init__(self):
        self.told = asyncio.Queue()
        self.seen = []

    def _put(self, name, *values):
        self.seen.append(name)
        self.told.put_nowait((name, *values))

    def leg_provisional(self, leg, response):
        self._put("provisional", response)

    def leg_answered(self, leg, response):
        self._put("answered", response)

    def leg_refused(self, leg, response, reason):
        self._put("refused", response, reason)

    def leg_cancelled(self, leg, reason_header):
        self._put("cancelled", reason_header)

    def leg_confirmed(self, leg):
        self._put("confirmed")

    def leg_offered(self, leg, request):
        leg.respond(request, 200, body=ANSWER, content_type="application/sdp")
        self._put("offered", request)

    def leg_requested(self, leg, request):
        leg.respond(request, 202 if request.method == "REFER" else 405)
        self._put("requested", request)

    def leg_refer_updated(self, leg, update):
        self._put("refer", update)

    def leg_ended(self, leg, ended):
        self._put("ended", ended)

    async def until(self, name):
        async with asyncio.timeout(PATIENCE):
            while (told := await self.told.get())[0] != name:
                pass
        return told


@pytest.fixture(scope="module")
def contexts():
    """A throw-away authority and a server certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "offhook test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return key, pem


@pytest.fixture
def tls(contexts, tmp_path):
    key, pem = contexts
    chain = tmp_path / "cert.pem"
    chain.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + pem
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    return server, ssl.create_default_context(cadata=pem.decode())


@contextlib.asynccontextmanager
async def pair(transport, tls, on_invite, **options):
    """A server that listens on `transport`, and a phone; both end with the block."""
    server = Endpoint(
        EndpointConfig((f"{transport}:127.0.0.1:0",), tls=tls[0], allow=ALLOW),
        clock=SystemClock(),
        on_invite=on_invite,
        **options,
    )
    phone = Endpoint(
        EndpointConfig((f"{transport}:127.0.0.1:0",), tls=tls[0], tls_client=tls[1], allow=ALLOW),
        clock=SystemClock(),
    )
    await server.start()
    await phone.start()
    try:
        yield server, phone
    finally:
        await phone.close()
        await server.close()


def call(phone, server, transport, **options):
    leg = phone.invite(
        f"sip:proj_test@127.0.0.1:{server.addresses[0].port};transport={transport}",
        from_uri="<sip:caller@127.0.0.1>",
        sdp=OFFER,
        **options,
    )
    leg.listener = Recorder()
    return leg


class Callee:
    """Takes calls: rings, and answers at once unless told to wait."""

    def __init__(self, *, answers=True):
        self.legs = asyncio.Queue()
        self.answers = answers

    def __call__(self, leg):
        leg.listener = Recorder()
        leg.traces = []
        leg.trace = leg.traces.append
        leg.ring()
        if self.answers:
            leg.answer(ANSWER)
        self.legs.put_nowait(leg)


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_a_whole_call_with_a_transfer(transport, tls):
    callee = Callee()
    async with pair(transport, tls, callee) as (server, phone):
        caller = call(phone, server, transport)
        _, answered = await caller.listener.until("answered")
        assert answered.body == ANSWER
        port = server.addresses[0].port
        suffix = "" if transport == "udp" else f";transport={transport}"
        assert answered.headers.get("Contact") == f"<sip:127.0.0.1:{port}{suffix}>"
        leg = await callee.legs.get()
        await leg.listener.until("confirmed")
        assert (leg.state, caller.state) == ("confirmed", "confirmed")
        assert leg.invite.body == OFFER

        answer = await leg.refer("tel:+15551234567")
        assert (answer.refer, answer.status, answer.no_notify) == (1, 202, False)
        _, refer = await caller.listener.until("requested")
        assert refer.headers.get("Refer-To") == "<tel:+15551234567>"
        for status, state in (
            (b"100 Trying", "active;expires=60"),
            (b"200 OK", "terminated;reason=noresource"),
        ):
            response = await caller.request(
                "NOTIFY",
                headers=[("Event", "refer"), ("Subscription-State", state)],
                body=b"SIP/2.0 " + status + b"\r\n",
                content_type="message/sipfrag",
            )
            assert response.status == 200
        kinds = [(await leg.listener.until("refer"))[1].kind for _ in range(3)]
        assert kinds == ["accepted", "progress", "completed"]

        leg.hangup()
        _, ended = await leg.listener.until("ended")
        assert ended.cause == "local_bye"
        _, ended = await caller.listener.until("ended")
        assert ended.cause == "remote_bye"
        decisions = [t.text for t in leg.traces if isinstance(t, RoutingDecision)]
        expected = "from Contact" if transport == "udp" else "by the INVITE's connection"
        assert decisions
        assert all(expected in text for text in decisions)
        first_lines = [
            (t.direction, t.data.split(b"\r\n")[0].split(b" sip:")[0])
            for t in leg.traces
            if isinstance(t, WireMessage)
        ]
        assert first_lines[:5] == [
            ("in", b"INVITE"),
            ("out", b"SIP/2.0 100 Trying"),
            ("out", b"SIP/2.0 180 Ringing"),
            ("out", b"SIP/2.0 200 OK"),
            ("in", b"ACK"),
        ]


async def raw_udp(endpoint, *datagrams, source="127.0.0.1"):
    """Send datagrams from a socket of its own, and return what comes back within a moment."""
    loop = asyncio.get_running_loop()
    got = []

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            got.append(data)

    transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=(source, 0))
    for data in datagrams:
        transport.sendto(data, ("127.0.0.1", endpoint.addresses[0].port))
    async with asyncio.timeout(PATIENCE):
        # The last datagram is one that is always answered, unless the source is not admitted.
        while not got and source == "127.0.0.1":
            await asyncio.sleep(0.005)
    if source != "127.0.0.1":
        await asyncio.sleep(0.1)
    transport.close()
    return got


def options(branch="1"):
    return (
        "OPTIONS sip:x@127.0.0.1 SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP 127.0.0.1:9;rport;branch=z9hG4bK{branch}\r\n"
        "From: <sip:a@b>;tag=1\r\nTo: <sip:x@127.0.0.1>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    ).encode()


async def test_garbage_does_not_stop_the_endpoint(tls):
    async with pair("udp", tls, Callee()) as (server, _):
        (answer,) = await raw_udp(
            server, b"\r\n\r\n", b"\x00" * 50, b"\xff" * 60_000, b"INVITE sip:nobody\r\n\r\n", options()
        )
        assert answer.startswith(b"SIP/2.0 200 OK")
        assert server.counters["dropped"] == 3


async def test_unlisted_source_gets_silence_on_udp_and_a_closed_connection_on_tcp(tls):
    refused = []

    def stranger(flow):
        return flow.remote[0] != "127.0.0.2"

    def note(flow, reason):
        refused.append((flow.transport, flow.remote[0]))

    async with pair("udp", tls, Callee(), admit=stranger, on_refused=note) as (server, _):
        assert await raw_udp(server, options(), source="127.0.0.2") == []
        assert len(await raw_udp(server, options())) == 1
    async with pair("tcp", tls, Callee(), admit=stranger, on_refused=note) as (server, _):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.addresses[0].port, local_addr=("127.0.0.2", 0)
        )
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()
    assert refused == [("udp", "127.0.0.2"), ("tcp", "127.0.0.2")]


async def test_stream_answers_pings_and_split_messages(tls):
    async with pair("tcp", tls, Callee()) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses[0].port)
        writer.write(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"\r\n"
        data = options("a") + options("b")
        for at in range(0, len(data), 50):
            writer.write(data[at : at + 50])
            await writer.drain()
        async with asyncio.timeout(PATIENCE):
            heads = [(await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0] for _ in range(2)]
        assert heads == [b"SIP/2.0 200 OK"] * 2
        writer.close()


async def test_fault_in_a_stream_is_answered_and_closes_it(tls):
    async with pair("tcp", tls, Callee()) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses[0].port)
        writer.write(options().replace(b"Content-Length: 0\r\n", b""))
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
        assert answer.startswith(b"SIP/2.0 400")
        writer.close()


async def test_fault_in_on_invite_is_500_for_that_call_only(tls):
    async with pair("udp", tls, lambda leg: 1 / 0) as (server, phone):
        for _ in range(2):
            caller = call(phone, server, "udp")
            _, response, _ = await caller.listener.until("refused")
            assert response.status == 500


async def test_on_invite_that_forgets_the_listener_is_500(tls):
    async with pair("udp", tls, lambda leg: None) as (server, phone):
        _, response, _ = await call(phone, server, "udp").listener.until("refused")
        assert response.status == 500


async def test_fault_in_a_listener_is_500_for_that_request_only(tls):
    class Faulty(Recorder):
        def leg_requested(self, leg, request):
            raise RuntimeError("bug")

    def on_invite(leg):
        leg.listener = Faulty()
        leg.answer(ANSWER)

    async with pair("udp", tls, on_invite) as (server, phone):
        caller = call(phone, server, "udp")
        await caller.listener.until("answered")
        assert (await caller.request("INFO")).status == 500
        assert (await caller.request("INVITE", body=OFFER, content_type="application/sdp")).status == 200
        assert caller.state == "confirmed"


async def test_caller_gives_up(tls):
    callee = Callee(answers=False)
    async with pair("udp", tls, callee) as (server, phone):
        caller = call(phone, server, "udp")
        await caller.listener.until("provisional")
        caller.hangup(reason_header="SIP;cause=487")
        _, response, _ = await caller.listener.until("refused")
        assert response.status == 487
        leg = await callee.legs.get()
        assert await leg.listener.until("cancelled") == ("cancelled", "SIP;cause=487")


async def test_refer_after_the_connection_closed_dials_the_contact(tls):
    """What a carrier does that closes quiet connections: the next request must find it again."""
    callee = Callee()
    async with pair("tcp", tls, callee) as (server, phone):
        caller = call(phone, server, "tcp")
        leg = await callee.legs.get()
        await leg.listener.until("confirmed")
        for connection in list(phone._transport._connections.values()):
            connection.abort()
        async with asyncio.timeout(PATIENCE):
            while server._transport._connections:
                await asyncio.sleep(0.005)
        answer = await leg.refer("tel:+15551234567")
        assert answer.status == 202
        await caller.listener.until("requested")
        decision = next(t.text for t in leg.traces if isinstance(t, RoutingDecision))
        assert "the INVITE's connection is gone" in decision
        assert "from Contact" in decision


async def test_refer_to_a_peer_that_cannot_be_reached_says_so(tls):
    callee = Callee()
    async with pair("tcp", tls, callee) as (server, phone):
        call(phone, server, "tcp")
        leg = await callee.legs.get()
        await leg.listener.until("confirmed")
        port = phone.addresses[0].port
        await phone.close()
        async with asyncio.timeout(PATIENCE):
            while server._transport._connections:
                await asyncio.sleep(0.005)
        with pytest.raises(ReferUnsendable) as caught:
            await leg.refer("tel:+15551234567")
        error = caught.value
        assert error.hop == f"127.0.0.1:{port} from Contact"
        assert (error.transport, error.errno) == ("tcp", 111)
        assert len(error.attempts) == 1
        assert leg.state == "confirmed"


async def test_refer_that_nobody_answers_times_out_and_stays_pending(tls):
    class Silent(Recorder):
        def leg_requested(self, leg, request):
            self._put("requested", request)

    callee = Callee()
    async with pair("udp", tls, callee) as (server, phone):
        caller = call(phone, server, "udp")
        caller.listener = Silent()
        leg = await callee.legs.get()
        await leg.listener.until("confirmed")
        with pytest.raises(ReferTimeout):
            await leg.refer("tel:+15551234567", timeout=0.05)
        with pytest.raises(ReferPending):
            await leg.refer("tel:+15551234567")
        # The answer that comes after all still counts.
        _, request = await caller.listener.until("requested")
        caller.respond(request, 202)
        _, update = await leg.listener.until("refer")
        assert (update.kind, update.sip_status) == ("accepted", 202)


async def test_tls_with_the_wrong_name_is_refused_and_says_why(tls):
    server = Endpoint(
        EndpointConfig(("tls:127.0.0.1:0",), tls=tls[0]), clock=SystemClock(), on_invite=Callee()
    )
    phone = Endpoint(
        EndpointConfig(("udp:127.0.0.1:0",), tls_client=tls[1]),
        clock=SystemClock(),
    )
    await server.start()
    await phone.start()
    leg = call(phone, server, "tls", tls_hostname="pstn.example.com")
    _, response, reason = await leg.listener.until("refused")
    assert response is None
    assert "certificate" in reason
    await phone.close()
    await server.close()


async def test_silent_connections_are_closed(tls):
    limits = TransportLimits(first_message_timeout=-1.0)
    server = Endpoint(
        EndpointConfig(("tcp:127.0.0.1:0",), limits=limits), clock=SystemClock(), on_invite=Callee()
    )
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses[0].port)
    writer.write(b"INVITE sip:endless")
    async with asyncio.timeout(PATIENCE):
        while not server._transport._connections:
            await asyncio.sleep(0.005)
        server._transport._reap()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
    await server.close()


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_a_peer_that_takes_nothing_any_more_is_let_go(transport, tls):
    """Half-open connections say nothing: without a bound, a BYE or REFER on one waits for many minutes."""
    limits = TransportLimits(unacknowledged_timeout=0.3)
    server = Endpoint(
        EndpointConfig((f"{transport}:127.0.0.1:0",), tls=tls[0], limits=limits), clock=SystemClock()
    )
    await server.start()
    requests = "".join(
        f"OPTIONS sip:x@y SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK{number}\r\nFrom: <sip:a@b>;tag=1\r\n"
        f"To: <sip:x@y>\r\nCall-ID: c\r\nCSeq: {number} OPTIONS\r\nContent-Length: 0\r\n\r\n"
        for number in range(300)
    )

    def speak_and_never_listen():
        connected = socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connected.settimeout(PATIENCE)
        connected.connect(("127.0.0.1", server.addresses[0].port))
        if transport == "tls":
            connected = tls[1].wrap_socket(connected, server_hostname="127.0.0.1")
        connected.sendall(requests.encode())
        return connected

    with await asyncio.to_thread(speak_and_never_listen):
        async with asyncio.timeout(PATIENCE):
            while not server._transport._connections:
                await asyncio.sleep(0.005)
            while server._transport._connections:
                await asyncio.sleep(0.02)
    await server.close()


async def test_connections_are_capped(tls):
    limits = TransportLimits(max_connections=1)
    server = Endpoint(
        EndpointConfig(("tcp:127.0.0.1:0",), limits=limits), clock=SystemClock(), on_invite=Callee()
    )
    await server.start()
    first_reader, first = await asyncio.open_connection("127.0.0.1", server.addresses[0].port)
    first.write(b"\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        await first_reader.readexactly(2)
        second_reader, second = await asyncio.open_connection("127.0.0.1", server.addresses[0].port)
        assert await second_reader.read() == b""
    first.write(b"\r\n\r\n")
    assert await first_reader.readexactly(2) == b"\r\n"
    first.close()
    second.close()
    await server.close()


async def test_ipv6(tls):
    callee = Callee()
    server = Endpoint(EndpointConfig(("udp:[::1]:0",)), clock=SystemClock(), on_invite=callee)
    phone = Endpoint(EndpointConfig(("udp:[::1]:0",)), clock=SystemClock())
    try:
        await server.start()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    await phone.start()
    leg = phone.invite(f"sip:x@[::1]:{server.addresses[0].port}", from_uri="sip:a@b", sdp=OFFER)
    leg.listener = Recorder()
    _, answered = await leg.listener.until("answered")
    assert answered.headers.get("Contact") == f"<sip:[::1]:{server.addresses[0].port}>"
    leg.hangup()
    await (await callee.legs.get()).listener.until("ended")
    await phone.close()
    await server.close()


@pytest.mark.parametrize("text", ["sctp:1.2.3.4:5060", "udp:5060", "udp:1.2.3.4:x", "tcp:1.2.3.4:70000", ""])
async def test_listen_address_that_cannot_be_is_said(text):
    with pytest.raises(ValueError, match="listen address"):
        await Endpoint(EndpointConfig((text,)), clock=SystemClock()).start()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_port_that_is_taken_is_named(transport):
    holder = Endpoint(EndpointConfig((f"{transport}:127.0.0.1:0",)), clock=SystemClock())
    await holder.start()
    port = holder.addresses[0].port
    try:
        with pytest.raises(OSError, match=rf"in use.*127\.0\.0\.1.*{port}"):
            await Endpoint(EndpointConfig((f"{transport}:127.0.0.1:{port}",)), clock=SystemClock()).start()
    finally:
        await holder.close()


async def test_tls_needs_a_certificate():
    with pytest.raises(ValueError, match="certificate"):
        await Endpoint(EndpointConfig(("tls:127.0.0.1:0",)), clock=SystemClock()).start()


async def test_local_address_of_a_socket_bound_to_all_is_the_one_that_the_peer_sees(tls):
    async with pair("udp", tls, Callee()) as (server, _):
        assert server._transport._local_address(("0.0.0.0", 5060), "127.0.0.1") == ("127.0.0.1", 5060)


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
@pytest.mark.parametrize("loopback", ["127.0.0.1", "[::1]"])
async def test_one_port_on_all_addresses_of_both_families(tls, transport, loopback):
    """IPv4 and IPv6 are bound side by side, and neither peer is told an address of the other family."""
    heard = []

    def on_invite(leg):
        leg.listener = listener = Recorder()
        heard.append((leg, listener))
        leg.answer(ANSWER)

    probe = Endpoint(EndpointConfig((f"{transport}:0.0.0.0:0",), tls=tls[0]), clock=SystemClock())
    await probe.start()
    port = probe.addresses[0].port
    await probe.close()
    server = Endpoint(
        EndpointConfig((f"{transport}:0.0.0.0:{port}", f"{transport}:[::]:{port}"), tls=tls[0]),
        clock=SystemClock(),
        on_invite=on_invite,
    )
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    phone = Endpoint(
        EndpointConfig((f"{transport}:{loopback}:0",), tls=tls[0], tls_client=client), clock=SystemClock()
    )
    await server.start()
    await phone.start()
    try:
        leg = phone.invite(
            f"sip:x@{loopback}:{port};transport={transport}", from_uri=f"sip:caller@{loopback}", sdp=OFFER
        )
        leg.listener = Recorder()
        _, answer = await leg.listener.until("answered")
        host = loopback.strip("[]")
        assert (answer.contact.uri.host, answer.contact.uri.port) == (host, port)
        (theirs, listener), *_ = heard
        await listener.until("confirmed")
        assert theirs.flow.local == (host, port)
        assert theirs.flow.remote[0] == host
        theirs.hangup()
        await leg.listener.until("ended")
    finally:
        await phone.close()
        await server.close()
