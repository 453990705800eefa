"""Ends of a call that cross its beginning."""

import asyncio

import pytest

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
    async with asyncio.timeout(2):
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
    async with asyncio.timeout(2):
        while leg.state != "answered":
            await asyncio.sleep(0.01)
    call.leg_ended(leg, LegEnded("no_ack", 'SIP;cause=408;text="no ACK"', "no ACK to our 200 within 32 s"))
    await settle(table, call)
    assert call.termination.to_api() == {
        "result": "client_error",
        "reason": "failed",
        "cause": "no ACK to our 200 within 32 s",
    }
