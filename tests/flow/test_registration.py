"""A number without an address of ours: the node registers with the carrier, and calls come by that flow."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from testbed import DeveloperApp, Node
from testbed.registrar import Registrar, Text

OFFER = "v=0\r\no=- 1 1 IN IP4 127.0.0.2\r\ns=-\r\nc=IN IP4 127.0.0.2\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"


@asynccontextmanager
async def registering(
    folder: Path,
    carrier: Registrar,
    patch: pytest.MonkeyPatch,
    *,
    password: str = "wonder:land",
    **more: Any,
) -> AsyncIterator[Node]:
    """A node whose one trunk registers; it lists no source at all. The registrar hears it come up and go."""
    patch.setenv("TEST_REGISTER_PASSWORD", password)
    register = {"registrar": carrier.uri, "user": "alice", "password_env": "TEST_REGISTER_PASSWORD"} | more
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in register.items())
    node = Node(folder, trunk=f'name = "carrier"\nregister = {{ {table} }}')
    await asyncio.to_thread(node.__enter__)
    try:
        yield node
    finally:
        await asyncio.to_thread(node.__exit__)


async def registrations(node: Node) -> list[dict[str, Any]]:
    async with httpx2.AsyncClient() as client:
        said = (await client.get(node.base_url.removesuffix("/v1") + "/readyz")).json()
    found: list[dict[str, Any]] = said["registrations"]
    return found


def invite(registrar: Registrar, target: str, call_id: str) -> list[str]:
    return [
        f"INVITE {target} SIP/2.0",
        f"Via: SIP/2.0/{registrar.transport.upper()} {registrar.host}:{registrar.port};branch=z9hG4bK{call_id}",
        "Max-Forwards: 70",
        "From: <sip:+15550100@carrier.example>;tag=c1",
        "To: <sip:+15550199@carrier.example>",
        f"Call-ID: {call_id}",
        "CSeq: 1 INVITE",
        f"Contact: <sip:carrier@{registrar.host}:{registrar.port};transport={registrar.transport}>",
        "Content-Type: application/sdp",
    ]


def acknowledge(registrar: Registrar, sent: list[str], ok: Text) -> None:
    contact = ok.one("Contact").strip("<>")
    registrar.send(
        f"ACK {contact} SIP/2.0",
        *(line for line in sent if line.startswith(("Max-", "From", "Call-ID"))),
        sent[1] + "a",
        f"To: {ok.one('To')}",
        "CSeq: 1 ACK",
    )


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
async def test_a_call_comes_by_the_registration_s_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str, algorithm: str
) -> None:
    async with Registrar(transport=transport, algorithm=algorithm) as registrar:
        async with registering(tmp_path, registrar, monkeypatch) as node:
            async with DeveloperApp(node) as app:
                await registrar.until(lambda: registrar.bindings)
                first, second = registrar.registers()
                assert first.all("Authorization") == []
                assert (first.one("Call-ID"), first.one("From")) == (
                    second.one("Call-ID"),
                    second.one("From"),
                )
                assert int(second.one("CSeq").split()[0]) == int(first.one("CSeq").split()[0]) + 1
                [contact] = registrar.bindings
                assert contact.startswith(f"<sip:{app.seat.project}@127.0.0.1:{node.sip[transport][1]}")
                assert "alice" in first.one("To")
                [state] = await registrations(node)
                assert (state["trunk"], state["state"]) == ("carrier", "registered")
                assert 590 <= state["expires_in_s"] <= 600
                # 127.0.0.2 stands nowhere in the configuration: it is the registrar's address that admits the call.
                sent = invite(registrar, contact.strip("<>"), "by-flow")
                registrar.send(*sent, body=OFFER)
                incoming = await app.incoming()
                await app.accept(incoming.call_id)
                ok = await registrar.hears("SIP/2.0 200 OK", after=2)
                acknowledge(registrar, sent, ok)
                described = await app.node.describe(app.seat, incoming.call_id)
                assert described["remote"] == f"{registrar.host}:{registrar.port}"
                asked = asyncio.create_task(app.client.realtime.calls.hangup(incoming.call_id))
                bye = await registrar.hears("BYE ")
                registrar.send(
                    "SIP/2.0 200 OK",
                    *(f"{n}: {bye.one(n)}" for n in ("Via", "From", "To", "Call-ID", "CSeq")),
                )
                await asked
            node.signal(signal.SIGTERM)
            assert await node.ended(10) == 0
        assert registrar.bindings == {}
        assert registrar.registers()[-1].one("Expires") == "0"


async def test_a_carrier_that_asks_again_in_mid_call_gets_the_same_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        Registrar(transport="tcp") as registrar,
        registering(tmp_path, registrar, monkeypatch) as node,
        DeveloperApp(node) as app,
    ):
        await registrar.until(lambda: registrar.bindings)
        [contact] = registrar.bindings
        sent = invite(registrar, contact.strip("<>"), "asks-again")
        registrar.send(*sent, body=OFFER)
        incoming = await app.incoming()
        await app.accept(incoming.call_id)
        acknowledge(registrar, sent, await registrar.hears("SIP/2.0 200 OK", after=2))
        calls = app.client.realtime.calls
        asked = asyncio.create_task(calls.refer(incoming.call_id, target_uri="tel:+15550123"))
        await _challenged(registrar, "REFER ", "202 Accepted")
        await asked
        asked = asyncio.create_task(calls.hangup(incoming.call_id))
        await _challenged(registrar, "BYE ", "200 OK")
        await asked
        [refer] = (await node.describe(app.seat, incoming.call_id))["refers"]
        assert refer["sip_status"] in (None, 202)
        assert "wonder" not in node.log_path.read_text()


async def _challenged(registrar: Registrar, method: str, then: str) -> None:
    """Ask a request for the password once, and answer it when it has come with it."""
    first = await registrar.hears(method)
    registrar.challenge(first)
    second = await registrar.hears(method, after=registrar.heard.index(first) + 1)
    assert registrar.knows(second)
    registrar.reply(second, then)


async def test_a_wrong_password_is_told_and_not_hammered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        Registrar() as registrar,
        registering(tmp_path, registrar, monkeypatch, password="not-it") as node,
    ):
        line = await node.logged("sip.registration")
        assert line["state"] == "failed"
        assert "401" in line["text"]
        assert "next try in" in line["text"]
        [state] = await registrations(node)
        assert state["state"] == "failed"
        assert len(registrar.registers()) == 2
        assert "not-it" not in node.log_path.read_text()


async def test_a_registrar_that_wants_longer_registrations_gets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Registrar(grants=3600) as registrar:
        registrar.script = [("423 Interval Too Brief", ["Min-Expires: 1800"])]
        async with registering(tmp_path, registrar, monkeypatch):
            await registrar.until(lambda: registrar.bindings)
            assert list(registrar.bindings.values()) == [1800]


async def test_a_short_registration_is_refreshed_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Registrar(grants=8) as registrar, registering(tmp_path, registrar, monkeypatch) as node:
        await registrar.until(lambda: len(registrar.registers()) == 3)
        # The nonce is used again, so a refresh costs one request.
        assert "nc=00000002" in registrar.registers()[2].one("Authorization")
        [state] = await registrations(node)
        assert state["state"] == "registered"


async def test_a_dropped_connection_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Registrar(transport="tcp") as registrar, registering(tmp_path, registrar, monkeypatch) as node:
        await registrar.until(lambda: registrar.bindings)
        await node.logged("sip.registration")
        before = len(registrar.registers())
        await registrar.drop_connections()
        await registrar.until(lambda: len(registrar.registers()) > before)
        [contact] = registrar.bindings
        registrar.send(*invite(registrar, contact.strip("<>"), "again"), body=OFFER)
        await registrar.hears("SIP/2.0 180")


async def test_a_registrar_that_is_away_at_first_is_found_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Registrar(transport="tcp") as gone:
        pass
    async with registering(tmp_path, gone, monkeypatch) as node:
        line = await node.logged("sip.registration")
        assert "unreachable" in line["text"]
        back = Registrar(transport="tcp")
        back.port = gone.port
        async with back:
            await back.until(lambda: back.bindings, 30)


async def test_sighup_ends_one_registration_and_begins_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Registrar() as first, Registrar() as second, registering(tmp_path, first, monkeypatch) as node:
        await first.until(lambda: first.bindings)
        text = node.config.read_text().replace(first.uri, second.uri)
        node.config.write_text(text)
        node.signal(signal.SIGHUP)
        await second.until(lambda: second.bindings)
        await first.until(lambda: not first.bindings)


async def test_a_registrar_that_is_a_name_is_admitted_by_its_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even its answer to REGISTER would be read otherwise: no source is listed."""
    async with Registrar(host="127.0.0.1") as registrar:
        named = f"sip:localhost:{registrar.port};transport=udp"
        async with registering(tmp_path, registrar, monkeypatch, registrar=named):
            await registrar.until(lambda: registrar.bindings)
            [contact] = registrar.bindings
            registrar.send(*invite(registrar, contact.strip("<>"), "named"), body=OFFER)
            await registrar.hears("SIP/2.0 180")
