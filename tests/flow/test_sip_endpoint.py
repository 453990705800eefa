"""Whole calls between two endpoints on real loopback sockets: UDP, TCP and TLS."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from offhook.clock import SystemClock
from offhook.sip.endpoint import Endpoint, EndpointConfig, LegListener
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


def call(phone, server, transport):
    leg = phone.invite(
        f"sip:proj_test@127.0.0.1:{server.addresses[0].port};transport={transport}",
        from_uri="<sip:caller@127.0.0.1>",
        sdp=OFFER,
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
        kinds = [(await leg.listener.until("refer"))[1].kind for _ in range(2)]
        assert kinds == ["progress", "completed"]

        leg.hangup()
        _, ended = await leg.listener.until("ended")
        assert ended.cause == "local_bye"
        _, ended = await caller.listener.until("ended")
        assert ended.cause == "remote_bye"
        decisions = [t.text for t in leg.traces if isinstance(t, RoutingDecision)]
        expected = "no Route" if transport == "udp" else "by the INVITE's connection"
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
