"""Ends of a call that cross its beginning."""

import asyncio

import pytest

from offhook.calls.dtmf import DigitOrder
from offhook.calls.errors import CallError
from offhook.realtime.engines.scripted import ScriptedEngine
from offhook.sip.events import LegEnded

ACCEPT = {"type": "realtime"}


@pytest.fixture
def warming(monkeypatch):
    """Let engines start only when the event is set; count those that started and were closed."""
    release, counts = asyncio.Event(), {"started": 0, "closed": 0}
    start, close = ScriptedEngine.start, ScriptedEngine.close

    async def slowly(self, *arguments):
        counts["started"] += 1
        await release.wait()
        return await start(self, *arguments)

    async def closes(self):
        counts["closed"] += 1
        await close(self)

    monkeypatch.setattr(ScriptedEngine, "start", slowly)
    monkeypatch.setattr(ScriptedEngine, "close", closes)
    return release, counts


async def settle(table, call):
    async with asyncio.timeout(15):
        await call.wait_closed()
        while table.manager._services.ports.free < table.manager._services.ports.total:
            await asyncio.sleep(0.01)


async def test_a_cancel_while_the_engine_warms(table, warming):
    release, counts = warming
    leg, call = table.invite()
    await call.accept(ACCEPT)
    await asyncio.sleep(0.01)
    assert (call.state, counts["started"]) == ("accepted", 1)
    leg.state = "ended"
    call.leg_cancelled(leg, 'SIP;cause=200;text="Call completed elsewhere"')
    release.set()
    await settle(table, call)
    assert leg.asked == [("ring", 180)]
    assert (call.termination.reason, call.termination.sip_status) == ("cancelled", 487)
    assert "Call completed elsewhere" in call.termination.cause
    assert counts["closed"] == 1
    assert table.manager.live == 0


@pytest.mark.parametrize("yields", [0, 1, 5])
async def test_an_engine_that_nobody_waits_for_any_more_is_let_go_at_once(table, warming, yields):
    _, counts = warming
    leg, call = table.invite()
    await call.accept(ACCEPT)
    for _ in range(yields):
        await asyncio.sleep(0)
    leg.state = "ended"
    call.leg_cancelled(leg, None)
    await settle(table, call)  # the engine is never ready
    assert counts == {"started": min(yields, 1), "closed": 1}
    assert call.termination.reason == "cancelled"


async def test_an_end_while_the_media_port_is_opened_gives_it_back(table):
    before = asyncio.all_tasks()
    for yields in range(12):
        call = table.invite()[1]
        await call.accept(ACCEPT)
        for _ in range(yields):
            await asyncio.sleep(0)
        await call.hangup()
        await settle(table, call)
    assert asyncio.all_tasks() == before


async def test_a_refer_that_waits_for_the_answer_ends_with_the_call(table, warming):
    leg, call = table.invite()
    await call.accept(ACCEPT)
    asked = asyncio.create_task(call.refer("tel:+15550100"))
    await asyncio.sleep(0.01)
    call.leg_cancelled(leg, None)
    with pytest.raises(CallError) as refused:
        async with asyncio.timeout(4):  # the engine has 5 s
            await asked
    assert refused.value.status == 404
    await settle(table, call)


async def test_digits_before_the_ack_has_answered_our_offer(table):
    leg, call = table.invite(sdp="")
    await call.accept(ACCEPT)
    async with asyncio.timeout(30):
        while leg.state != "answered":
            await asyncio.sleep(0.01)
    with pytest.raises(CallError) as refused:
        await call.dtmf(DigitOrder("1"))
    assert (refused.value.status, refused.value.code) == (409, "call_has_no_media")
    await call.hangup()
    await settle(table, call)


async def test_a_hangup_while_the_engine_warms(table, warming):
    release, _ = warming
    leg, call = table.invite()
    await call.accept(ACCEPT)
    await asyncio.sleep(0.01)
    await call.hangup()
    release.set()
    await settle(table, call)
    assert leg.asked == [("ring", 180), ("hangup",)]
    assert (call.termination.reason, call.termination.sip_status) == ("hangup", 480)


async def test_a_call_whose_200_is_never_acknowledged_says_so(table):
    leg, call = table.invite()
    await call.accept(ACCEPT)
    async with asyncio.timeout(15):
        while leg.state != "answered":
            await asyncio.sleep(0.01)
    call.leg_ended(leg, LegEnded("no_ack", 'SIP;cause=408;text="no ACK"', "no ACK to our 200 within 32 s"))
    await settle(table, call)
    assert call.termination.to_api() == {
        "result": "client_error",
        "reason": "failed",
        "cause": "no ACK to our 200 within 32 s",
    }
