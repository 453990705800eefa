"""
How calls end, and what crosses what (RFC 3261 sections 9, 11, 13 and 15, RFC 3326), in raw bytes to a running node.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from testbed import DeveloperApp, Node
from testbed.invites import PLAIN, bend, sdp_of, write
from testbed.trunk import SipText, Trunk, TrunkCall, establish, hung_up, new_branch, post, ring
from testbed.waiting import until

METHODS = {"INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "NOTIFY", "UPDATE"}


@pytest.fixture
async def udp(node: Node) -> AsyncIterator[Trunk]:
    async with Trunk(node.sip["udp"], "udp") as trunk:
        yield trunk


async def termination(app: DeveloperApp, call_id: str) -> Any:
    """Wait for the call's end, and return it as REST tells it."""
    data = (await app.next("realtime.call.ended")).event.data
    assert data.call_id == call_id
    described = await app.node.describe(app.seat, call_id)
    assert described["state"] == "ended"
    assert described["termination"]["reason"] == data.reason
    return described["termination"]


def outside(trunk: Trunk, project: str, method: str, *lines: str) -> str:
    """Return a request of the carrier's that belongs to no call."""
    head, _, _ = write(PLAIN, trunk, project).partition("\r\n\r\n")
    head = re.sub(r"Content-Type: .*\r\n", "", head).replace("INVITE", method)
    head = re.sub(r"Content-Length: \d+", "Content-Length: 0", head)
    return "\r\n".join([head, *lines, "", ""])


def allowed(response: SipText) -> set[str]:
    return set(response.one("Allow").split(", "))


# CANCEL.


async def test_a_cancel_that_crosses_our_200_changes_nothing_and_the_caller_hangs_up(
    app: DeveloperApp, udp: Trunk
) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project), ack=False)
    udp.send(call.hop_request("CANCEL"))
    assert (await udp.expect("SIP/2.0 ", where=lambda m: m.method == "CANCEL")).status == 200
    call.ack()
    assert (await call.ask("BYE")).status == 200
    assert (await termination(app, call_id))["reason"] == "remote_hangup"
    assert not [m for m in udp.seen if m.status == 487]


async def test_cancel_and_accept_at_the_same_moment(app: DeveloperApp, udp: Trunk) -> None:
    """Whoever is first, the caller gets one final response and the call ends once."""
    for after in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008):
        invite = write(PLAIN, udp, app.seat.project)
        call, call_id = await ring(udp, app, invite)
        accepting = asyncio.create_task(post(app, call_id, "accept", {"type": "realtime"}))
        await asyncio.sleep(after)
        udp.send(call.hop_request("CANCEL"))
        final = await udp.expect(
            "SIP/2.0 ",
            where=lambda m, c=call: (
                m.one("Call-ID") == c.call_id and m.method == "INVITE" and m.status >= 200
            ),
        )
        if final.status == 200:
            call.ok = final
            call.ack()
            assert (await call.ask("BYE")).status == 200
        else:
            assert final.status == 487
            udp.send(call.hop_request("ACK"))
        assert await accepting in (200, 404)
        end = await termination(app, call_id)
        assert end["reason"] == {200: "remote_hangup", 487: "cancelled"}[final.status]
        await asyncio.sleep(0.05)
        finals = {m.status for m in udp.seen if m.one("Call-ID") == call.call_id and m.method == "INVITE"}
        assert len([status for status in finals if status >= 200]) == 1


async def test_a_cancels_reason_is_told(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await ring(udp, app, write(PLAIN, udp, app.seat.project))
    cancel = call.hop_request("CANCEL")
    said = 'SIP;cause=200;text="Call completed elsewhere"'
    udp.send(bend(cancel, ("Max-Forwards", f"Reason: {said}\r\nMax-Forwards")))
    await udp.expect("SIP/2.0 487")
    udp.send(call.hop_request("ACK"))
    end = await termination(app, call_id)
    assert (end["reason"], end["sip_status"]) == ("cancelled", 487)
    assert said in end["cause"]


async def test_a_cancel_of_a_reinvite_or_of_nothing(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    # The re-INVITE is answered at once, so its CANCEL comes too late.
    reinvite = call.request("INVITE", body=sdp_of(call.invite).replace("o=- 1 1", "o=- 1 2"))
    udp.send(reinvite)
    udp.send(TrunkCall(udp, reinvite).hop_request("CANCEL"))
    assert (await udp.expect("SIP/2.0 ", where=lambda m: m.method == "CANCEL")).status == 200
    call.send("ACK", cseq=call.cseq)
    stray = bend(call.hop_request("CANCEL"), ("branch=z9hG4bK", "branch=z9hG4bKother"))
    udp.send(stray)
    assert (await udp.expect("SIP/2.0 481")).method == "CANCEL"
    assert (await app.node.describe(app.seat, call_id))["state"] == "active"
    await hung_up(call, app, call_id)


# One INVITE by two ways.


async def test_the_same_invite_by_another_path_is_482(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 3261 section 8.2.2.2: same From tag, Call-ID and CSeq, another branch."""
    invite = write(PLAIN, udp, app.seat.project)
    call, call_id = await ring(udp, app, invite)
    merged = re.sub(r"branch=[^;\r]+", f"branch={new_branch()}", invite, count=1)
    udp.send(merged)
    refused = await udp.expect("SIP/2.0 482")
    udp.send(TrunkCall(udp, merged).hop_request("ACK"))
    assert call.ringing is not None
    assert refused.to_tag != call.ringing.to_tag
    await app.accept(call_id)
    call.ok = await udp.expect("SIP/2.0 200")
    call.ack()
    await hung_up(call, app, call_id)
    assert [webhook.type for webhook in app.webhooks].count("realtime.call.incoming") == 1


async def test_an_invite_again_after_its_refusal_is_a_new_try(app: DeveloperApp, udp: Trunk) -> None:
    """A carrier that fails over from one of our addresses to another keeps Call-ID, tag and CSeq."""
    invite = write(PLAIN, udp, app.seat.project)
    call, call_id = await ring(udp, app, invite)
    assert await post(app, call_id, "reject", {"status_code": 486}) == 200
    await udp.expect("SIP/2.0 486")
    udp.send(call.hop_request("ACK"))
    again = re.sub(r"branch=[^;\r]+", f"branch={new_branch()}", invite, count=1)
    udp.send(again)
    second = (await app.incoming()).call_id
    assert second != call_id
    udp.send(TrunkCall(udp, again).hop_request("CANCEL"))
    await udp.expect("SIP/2.0 487")


# ACK.


async def test_a_lost_ack_is_asked_for_until_it_comes(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 3261 section 13.3.1.4: the 200 after T1, then after twice that; none after the ACK."""
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project), ack=False)
    first = call.ok
    assert first is not None
    second = await udp.expect("SIP/2.0 200", after=first.at)
    third = await udp.expect("SIP/2.0 200", after=second.at)
    assert 0.4 < second.at - first.at < 0.9
    assert 0.6 < third.at - second.at < 1.9
    assert first.headers == second.headers == third.headers
    assert (await app.node.describe(app.seat, call_id))["state"] == "answered"
    call.ack()
    call.ack()
    await asyncio.sleep(2.2)
    assert len([m for m in udp.seen if m.status == 200 and m.method == "INVITE"]) == 3
    assert (await app.node.describe(app.seat, call_id))["state"] == "active"
    await hung_up(call, app, call_id)


async def test_the_ack_to_a_reinvite_may_get_lost_too(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    body = sdp_of(call.invite).replace("o=- 1 1", "o=- 1 2")
    first = await call.ask("INVITE", body=body)
    again = await udp.expect("SIP/2.0 200", after=first.at, where=lambda m: m.cseq == first.cseq)
    assert again.body == first.body
    call.send("ACK", cseq=first.cseq)
    await hung_up(call, app, call_id)


# BYE, at any time.


async def test_a_bye_while_it_rings_ends_the_invite_too(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 3261 section 15.1.2: 200 to the BYE, 487 to the INVITE."""
    call, call_id = await ring(udp, app, write(PLAIN, udp, app.seat.project))
    bye = call.request("BYE")
    udp.send(bye)
    assert (await udp.expect("SIP/2.0 ", where=lambda m: m.method == "BYE")).status == 200
    await udp.expect("SIP/2.0 487")
    udp.send(call.hop_request("ACK"))
    assert (await termination(app, call_id))["reason"] == "cancelled"
    udp.send(bye)
    await until(lambda: len([m for m in udp.seen if m.method == "BYE"]) >= 2)
    assert [m.status for m in udp.seen if m.method == "BYE"] == [200, 200]


async def test_a_bye_comes_again_and_then_once_more_as_another(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    bye = call.request("BYE", 'Reason: Q.850;cause=31;text="a, b"', "Reason: SIP;cause=500")
    for _ in range(3):
        udp.send(bye)
    end = await termination(app, call_id)
    assert end["reason"] == "remote_hangup"
    assert end["cause"] == 'the caller hung up (Q.850;cause=31;text="a, b", SIP;cause=500)'
    # The call is gone; another BYE for it is for nothing that is here.
    assert (await call.ask("BYE")).status == 481
    assert [m.status for m in udp.seen if m.method == "BYE"] == [200, 200, 200, 481]
    assert [webhook.type for webhook in app.webhooks].count("realtime.call.ended") == 1


async def test_a_bye_with_a_reinvite_on_its_heels(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    body = sdp_of(call.invite).replace("o=- 1 1", "o=- 1 2")
    first = call.send("INVITE", body=body)
    call.send("BYE")
    second = call.send("INVITE", body=body)
    assert (await termination(app, call_id))["reason"] == "remote_hangup"
    await until(lambda: {m.cseq for m in udp.seen if m.status >= 200} >= {first, second})
    final = {m.cseq: m.status for m in udp.seen if m.method == "INVITE" and m.cseq >= first}
    assert final[first] in (200, 487)
    assert final[second] == 481


async def test_a_bye_while_our_refer_waits_for_its_answer(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    asked = asyncio.create_task(post(app, call_id, "refer", {"target_uri": "tel:+14155550123"}))
    refer = await udp.expect("REFER ")
    assert (await call.ask("BYE")).status == 200
    assert (await termination(app, call_id))["reason"] == "remote_hangup"
    udp.answer(refer, "481 Call Does Not Exist")
    assert await asked >= 400


async def test_our_bye_and_theirs_cross(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    asked = asyncio.create_task(post(app, call_id, "hangup"))
    ours = await udp.expect("BYE ")
    theirs = await call.ask("BYE")
    assert theirs.status == 200
    udp.answer(ours, "481 Call/Transaction Does Not Exist")
    assert await asked == 200
    assert (await termination(app, call_id))["reason"] == "hangup"
    assert [webhook.type for webhook in app.webhooks].count("realtime.call.ended") == 1


# Our own ends.


async def test_hanging_up_while_it_rings_is_480(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await ring(udp, app, write(PLAIN, udp, app.seat.project))
    assert await post(app, call_id, "hangup") == 200
    refused = await udp.expect("SIP/2.0 480")
    udp.send(call.hop_request("ACK"))
    assert refused.one("Reason") == 'SIP;cause=480;text="the app hung up"'
    end = await termination(app, call_id)
    assert (end["reason"], end["sip_status"]) == ("hangup", 480)


async def test_our_bye_says_why(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    bye = await hung_up(call, app, call_id)
    assert bye.one("Reason") == 'Q.850;cause=16;text="Normal call clearing"'


async def test_a_481_to_our_refer_does_not_end_the_call(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 5057 section 5.1: it says that there is no subscription."""
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    asked = asyncio.create_task(post(app, call_id, "refer", {"target_uri": "tel:+14155550123"}))
    udp.answer(await udp.expect("REFER "), "481 Call/Transaction Does Not Exist")
    assert await asked >= 400
    assert (await app.node.describe(app.seat, call_id))["state"] == "active"
    await hung_up(call, app, call_id)


# Other requests.


@pytest.mark.parametrize("method", ["MESSAGE", "PRACK", "SUBSCRIBE", "PUBLISH", "REGISTER"])
async def test_methods_that_are_not_for_a_call_are_405(app: DeveloperApp, udp: Trunk, method: str) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    answer = await call.ask(method)
    assert answer.status == 405
    assert allowed(answer) >= METHODS
    assert method not in allowed(answer)
    assert (await app.node.describe(app.seat, call_id))["state"] == "active"
    await hung_up(call, app, call_id)


async def test_an_unknown_method_is_501_in_a_call_and_outside(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    answer = await call.ask("TELEPORT")
    assert answer.status == 501
    assert allowed(answer) >= METHODS
    udp.send(outside(udp, app.seat.project, "TELEPORT"))
    answer = await udp.expect("SIP/2.0 501", after=answer.at)
    assert allowed(answer) >= METHODS
    await hung_up(call, app, call_id)


async def test_an_info_that_means_nothing_here_is_refused(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    text = call.request("INFO", "Content-Type: application/x-nothing").replace(
        "Content-Length: 0", "Content-Length: 2"
    )
    udp.send(text + "xx")
    answer = await udp.expect("SIP/2.0 ", where=lambda m: m.method == "INFO")
    assert answer.status in (405, 415)
    udp.send(outside(udp, app.seat.project, "INFO"))
    stray = await udp.expect("SIP/2.0 ", after=answer.at, where=lambda m: m.method == "INFO")
    assert stray.status in (405, 481)
    await hung_up(call, app, call_id)


async def test_options_outside_and_inside_a_call(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 3261 section 11: what a keepalive of a carrier or a Kamailio gets."""
    udp.send(outside(udp, app.seat.project, "OPTIONS"))
    answer = await udp.expect("SIP/2.0 200")
    assert allowed(answer) >= METHODS
    assert "application/sdp" in answer.one("Accept")
    # Without a user, and with no hops left: it is us who are asked.
    bare = outside(udp, app.seat.project, "OPTIONS").replace(f"sip:{app.seat.project}@", "sip:", 1)
    udp.send(bend(bare, ("Max-Forwards: 70", "Max-Forwards: 0")))
    await udp.expect("SIP/2.0 200", after=answer.at)
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    for _ in range(3):
        assert (await call.ask("OPTIONS")).status == 200
    assert (await app.node.describe(app.seat, call_id))["state"] == "active"
    await app.next("realtime.call.answered")
    assert len(app.webhooks) == 2
    await hung_up(call, app, call_id)


async def test_options_while_the_node_drains(tmp_path: Path) -> None:
    """
    Inside a call as ever; outside 503, as an INVITE would get, so that a dispatcher takes the node out.

    Without Retry-After, which would keep the BYEs of its calls away as well (RFC 3261 section 21.5.4).
    """
    with Node(tmp_path, seats=1) as node:
        async with DeveloperApp(node) as app, Trunk(node.sip["udp"], "udp") as udp:
            call, _ = await establish(udp, app, write(PLAIN, udp, app.seat.project))
            assert node._process is not None
            node._process.send_signal(signal.SIGTERM)
            await node.logged("node.draining")
            udp.send(outside(udp, app.seat.project, "OPTIONS"))
            refused = await udp.expect("SIP/2.0 503")
            assert not refused.all("Retry-After")
            assert (await call.ask("OPTIONS")).status == 200
            assert (await call.ask("BYE")).status == 200
