"""Calls over IPv6: every transport, sound, and addresses that the peer can use; IPv4 beside it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

import pytest

from offhook.sip.headers import parse_name_addr
from offhook.sip.uri import SipUri
from testbed import DeveloperApp, Node, Phone, Sideband
from testbed.script import SCRIPT

LISTEN = (
    *("udp:127.0.0.1:0", "tcp:127.0.0.1:0", "tls:127.0.0.1:0"),
    *("udp:[::1]:0", "tcp:[::1]:0", "tls:[::1]:0"),
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(
        tmp_path_factory.mktemp("both"), script=SCRIPT, seats=8, listen=LISTEN, media_bind="::1"
    ) as running:
        yield running


@pytest.fixture
async def app(both: Node) -> AsyncIterator[DeveloperApp]:
    async with DeveloperApp(both) as listening:
        yield listening


@pytest.mark.parametrize("transport", ["udp6", "tcp6", "tls6"])
async def test_a_call_over_ipv6_is_heard_and_ends(app: DeveloperApp, transport: str) -> None:
    async with Phone(app.node, transport) as phone:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id)
        answer = await call.answered()
        async with Sideband(app.client, call_id) as sideband:
            await sideband.connection.response.create()
            await call.hears_sound(200)

        contact = parse_name_addr(answer.headers.get("Contact") or "").uri
        assert isinstance(contact, SipUri)
        assert (contact.host, contact.port) == app.node.sip[transport]
        assert contact.param("transport") == {"udp6": None}.get(transport, transport.removesuffix("6"))
        assert b"c=IN IP6 ::1\r\n" in answer.body
        assert re.search(rb"o=\S+ \d+ \d+ IN IP6 ::1\r\n", answer.body)

        # The app's hangup comes back as a BYE whose own Via the phone can answer to.
        await app.client.realtime.calls.hangup(call_id)
        await call.ended()
        [bye] = call.received("BYE")
        sent_by = bye.message.top_via
        assert sent_by.host.strip("[]") == "::1"
        assert sent_by.port == app.node.sip[transport][1]
        described = await app.node.describe(app.seat, call_id)
    assert described["remote"].startswith("[::1]:")
    assert described["termination"]["reason"] == "hangup"


async def test_a_transfer_over_ipv6_goes_by_the_invite_s_flow(app: DeveloperApp) -> None:
    async with Phone(app.node, "udp6") as phone:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id)
        await call.answered()
        await app.client.realtime.calls.refer(call_id, target_uri="sip:desk@[2001:db8::7]:5070")
        [refer] = call.refers
        assert refer.headers.get("Refer-To") == "<sip:desk@[2001:db8::7]:5070>"
        await call.ended()


async def test_ipv4_reaches_the_same_node_and_hears_why_its_sound_cannot(app: DeveloperApp) -> None:
    """Signalling may be of both families; sound is of `media.bind`'s alone."""
    async with Phone(app.node, "udp") as phone:
        call = await phone.dial(app.seat.project)
        response = await call.refused()
    assert response.status == 488
    assert "media here is IPv6" in (response.headers.get("Reason") or "")
