"""Each verb in each state of a call, two apps at once, and what the caller may do meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2
import pytest

from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband

TARGET = {"target_uri": "tel:+14155550123"}
ACCEPT = {"type": "realtime"}


class Rest:
    """A plain HTTP client for one call."""

    def __init__(self, app: DeveloperApp, call_id: str, http: httpx2.AsyncClient) -> None:
        self._app, self._call_id, self._http = app, call_id, http

    async def post(self, verb: str, body: Any = None) -> httpx2.Response:
        return await self._http.post(
            f"{self._app.node.base_url}/realtime/calls/{self._call_id}/{verb}",
            headers={"Authorization": f"Bearer {self._app.seat.api_key}"},
            **({"json": body} if body is not None else {}),
        )

    async def ask(self, verb: str, body: Any = None) -> tuple[int, str | None]:
        """Return the status and the error's code. A success is empty, an error not to be repeated."""
        response = await self.post(verb, body)
        if response.status_code == 200:
            assert response.content == b""
            assert "content-type" not in response.headers
            return 200, None
        assert response.headers["x-should-retry"] == "false"
        return response.status_code, response.json()["error"]["code"]


@pytest.fixture
async def http():
    async with httpx2.AsyncClient(timeout=12, limits=httpx2.Limits(max_connections=20)) as client:
        yield client


async def dial(app: DeveloperApp, phone: Phone, http: httpx2.AsyncClient) -> tuple[PhoneCall, Rest, str]:
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    return call, Rest(app, call_id, http), call_id


GONE = (404, "call_id_not_found")


async def _all_gone(rest: Rest) -> None:
    for verb, body in (("accept", ACCEPT), ("reject", None), ("refer", TARGET), ("hangup", None)):
        assert await rest.ask(verb, body) == GONE, verb


async def test_while_it_rings(app: DeveloperApp, phone: Phone, http: httpx2.AsyncClient) -> None:
    call, rest, _ = await dial(app, phone, http)
    assert await rest.ask("refer", TARGET) == (409, "call_not_accepted")
    assert await rest.ask("hangup") == (200, None)
    assert (await call.refused()).status == 480
    await _all_gone(rest)


async def test_once_accepted(app: DeveloperApp, phone: Phone, http: httpx2.AsyncClient) -> None:
    call, rest, _ = await dial(app, phone, http)
    assert await rest.ask("accept", ACCEPT) == (200, None)
    assert await rest.ask("reject", {"status_code": 486}) == (409, "call_already_accepted")
    assert await rest.ask("accept", {"type": "anything, since it is not read"}) == (200, None)
    await call.answered()
    assert await rest.ask("reject") == (409, "call_already_accepted")
    assert await rest.ask("hangup") == (200, None)
    assert (await call.ended()).cause == "remote_bye"
    await _all_gone(rest)


async def test_refer_the_moment_that_accept_is_answered(
    app: DeveloperApp, phone: Phone, http: httpx2.AsyncClient
) -> None:
    """The SIP 200 may not be out yet, and its ACK is not in."""
    call, rest, _ = await dial(app, phone, http)
    assert await rest.ask("accept", ACCEPT) == (200, None)
    assert await rest.ask("refer", TARGET) == (200, None)
    await call.ended()
    assert len(call.refers) == 1
    await _all_gone(rest)


async def test_accept_and_hangup_at_once(
    app: DeveloperApp, phone: Phone, http: httpx2.AsyncClient, node: Node
) -> None:
    call, rest, call_id = await dial(app, phone, http)
    outcomes = await asyncio.gather(rest.ask("accept", ACCEPT), rest.ask("hangup"))
    assert outcomes in ([(200, None), (200, None)], [GONE, (200, None)])
    # Whichever came first, the phone is not left in a call that nobody holds.
    async with asyncio.timeout(15):
        while not (call.ended_by or call.received("480 INVITE")):
            await asyncio.sleep(0.01)
    assert (await node.describe(app.seat, call_id))["state"] == "ended"


async def test_hangup_while_a_transfer_is_asked_for(
    app: DeveloperApp, phone: Phone, http: httpx2.AsyncClient
) -> None:
    """The phone ends the REFER with 487 as it takes the BYE; the app need not wait for more."""
    call, rest, _ = await dial(app, phone, http)
    await rest.ask("accept", ACCEPT)
    await call.answered()
    call.on_refer = None
    referring = asyncio.create_task(rest.ask("refer", TARGET))
    while not call.refers:
        await asyncio.sleep(0.01)
    began = time.monotonic()
    assert await rest.ask("hangup") == (200, None)
    status, code = await referring
    assert time.monotonic() - began < 5, "a REFER without an answer is waited for 8 s"
    assert status == 502
    assert code in ("refer_rejected", "refer_unreachable")
    await call.ended()


async def test_the_caller_hangs_up_while_a_transfer_is_asked_for(
    app: DeveloperApp, phone: Phone, http: httpx2.AsyncClient
) -> None:
    call, rest, _ = await dial(app, phone, http)
    await rest.ask("accept", ACCEPT)
    await call.answered()
    call.on_refer = None
    referring = asyncio.create_task(rest.post("refer", TARGET))
    while not call.refers:
        await asyncio.sleep(0.01)
    began = time.monotonic()
    call.hang_up()
    response = await referring
    assert time.monotonic() - began < 5, "a REFER without an answer is waited for 8 s"
    error = response.json()["error"]
    assert response.status_code == 502
    assert error["message"].endswith("The call is over.")
    assert (await app.next("realtime.call.ended")).event.data.reason == "remote_hangup"


@pytest.mark.parametrize("rival", ["accept", "reject"])
async def test_two_apps_decide_at_once_and_one_wins(
    app: DeveloperApp, phone: Phone, http: httpx2.AsyncClient, rival: str
) -> None:
    for order in (1, -1) * 3:
        call, rest, call_id = await dial(app, phone, http)
        asks = [
            rest.ask("accept", ACCEPT),
            rest.ask(rival, ACCEPT if rival == "accept" else {"status_code": 486}),
        ]
        accepted, other = (await asyncio.gather(*asks[::order]))[::order]
        if rival == "accept":
            assert (accepted, other) == ((200, None), (200, None))
            await call.answered()
        elif accepted == (200, None):
            assert other == (409, "call_already_accepted")
            await call.answered()
        else:
            assert (accepted, other) == (GONE, (200, None))
            assert (await call.refused()).status == 486
            continue
        async with Sideband(app.client, call_id) as one, Sideband(app.client, call_id) as two:
            ids = [(await each.wait_for("session.created"))["session"]["id"] for each in (one, two)]
        assert ids[0] == ids[1]
        assert len(call.received("200 INVITE")) == 1
        await rest.ask("hangup")
        await call.ended()


async def test_accept_crosses_the_callers_cancel(
    app: DeveloperApp, phone: Phone, http: httpx2.AsyncClient, node: Node
) -> None:
    """Whoever comes first: 404 and no session, or an answered call; never a session for nobody (API row R07)."""
    for delay in (0.0, 0.001, 0.003, 0.01):
        call, rest, call_id = await dial(app, phone, http)
        await call.rings()
        accepting = asyncio.create_task(rest.ask("accept", ACCEPT))
        await asyncio.sleep(delay)
        call.hang_up()
        outcome = await accepting
        assert outcome in (GONE, (200, None))
        async with asyncio.timeout(15):
            while (await node.describe(app.seat, call_id))["state"] != "ended":
                await asyncio.sleep(0.02)
        described = await node.describe(app.seat, call_id)
        assert described["termination"]["reason"] in ("cancelled", "remote_hangup")
        if outcome == GONE:
            assert described["session"] is None
        assert await rest.ask("accept", ACCEPT) == GONE


async def test_a_reinvite_without_an_offer_and_an_update_refresh_the_call(
    app: DeveloperApp, phone: Phone, http: httpx2.AsyncClient
) -> None:
    """As session timers send them (RFC 4028 section 7.4): the call and its sound stay as they were."""
    call, rest, call_id = await dial(app, phone, http)
    await rest.ask("accept", ACCEPT)
    await call.answered()
    updated = await call.leg.request("UPDATE")
    assert (updated.status, updated.body) == (200, b"")
    offered = await call.leg.request("INVITE")
    assert offered.status == 200
    assert b"m=audio" in offered.body
    async with Sideband(app.client, call_id) as sideband:
        await sideband.wait_for("session.created")
        await sideband.connection.response.create()
        await call.hears_sound()


async def test_each_new_description_has_a_new_version(
    app: DeveloperApp, phone: Phone, http: httpx2.AsyncClient
) -> None:
    """RFC 3264 section 8: one that says something else under an old version may be taken for the old one."""
    call, rest, _ = await dial(app, phone, http)
    await rest.ask("accept", ACCEPT)
    offer = (await call.answered(), call.wire[0].message.body)[1]
    versions = [_version(call.received("200 INVITE")[0].message.body)]
    for line in (b"a=sendonly", b"a=sendrecv", b"a=inactive"):
        held = offer.replace(b"a=sendrecv", line)
        response = await call.leg.request("INVITE", body=held, content_type="application/sdp")
        assert response.status == 200
        versions.append(_version(response.body))
    assert versions == sorted(set(versions))


async def test_a_later_offer_changes_the_codec_and_not_what_the_session_speaks(
    app: DeveloperApp, phone: Phone, http: httpx2.AsyncClient
) -> None:
    call, rest, _ = await dial(app, phone, http)
    await rest.ask("accept", ACCEPT)
    await call.answered()
    offer = call.wire[0].message.body
    assert b"RTP/AVP 0 8 " in offer
    other_first = offer.replace(b"RTP/AVP 0 8 ", b"RTP/AVP 8 0 ")
    response = await call.leg.request("INVITE", body=other_first, content_type="application/sdp")
    assert response.status == 200
    assert b"RTP/AVP 8" in response.body
    neither = offer.replace(b"RTP/AVP 0 8 ", b"RTP/AVP 3 ")
    response = await call.leg.request("INVITE", body=neither, content_type="application/sdp")
    assert response.status == 488
    assert call.alive


def _version(sdp: bytes) -> int:
    return int(next(line for line in sdp.decode().splitlines() if line.startswith("o=")).split()[2])
