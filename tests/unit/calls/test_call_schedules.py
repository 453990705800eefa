"""Whatever is asked of a call and said about it, in whatever order: one end, and nothing left behind."""

import asyncio
import contextlib
import random

import pytest

from offhook.calls.dtmf import DigitOrder
from offhook.calls.errors import CallError
from offhook.realtime.engines.scripted import ScriptedEngine
from offhook.sip.events import LegEnded
from offhook.sip.message import Response
from offhook.sip.refer import ReferAnswer, ReferTimeout, ReferUpdate

ACCEPT = {"type": "realtime"}


class Schedule:
    """One call and the dice that decide what comes next."""

    def __init__(self, table, seed):
        self.dice = random.Random(seed)
        self.leg, self.call = table.invite()
        self.leg.refer = self._refer
        self.asked = []

    async def _refer(self, refer_to, *, referred_by, timeout):
        self.leg.refer_count += 1
        number = self.leg.refer_count
        await self._pause()
        if self.dice.random() < 0.2:
            raise ReferTimeout("no answer")
        status = self.dice.choice([202, 202, 403])
        return ReferAnswer(number, status, "Said", False, Response(status, "Said", headers=[], body=b""))

    async def _pause(self):
        for _ in range(self.dice.choice([0, 0, 1, 2, 5])):
            await asyncio.sleep(0)
        if self.dice.random() < 0.1:
            await asyncio.sleep(0.005)

    def _ask(self, request):
        async def asking():
            with contextlib.suppress(CallError):
                await request

        self.asked.append(asyncio.create_task(asking()))

    def _step(self):
        call, leg = self.call, self.leg
        step = self.dice.choice(
            [
                "accept",
                "accept",
                "reject",
                "hangup",
                "refer",
                "said",
                "dtmf",
                "session",
                "notify",
                "cancel",
                "ack",
                "bye",
            ]
        )
        match step:
            case "accept":
                self._ask(call.accept(ACCEPT))
            case "reject":
                self._ask(call.reject(486))
            case "hangup":
                self._ask(call.hangup())
            case "refer" | "said":
                self._ask(call.refer("tel:+15550100", wait_for_playout=step == "said"))
            case "dtmf":
                self._ask(call.dtmf(DigitOrder("1", method="inband")))
            case "session":
                self._ask(call.session())
            case "notify":
                kind = self.dice.choice(["progress", "completed", "failed"])
                call.leg_refer_updated(leg, ReferUpdate(leg.refer_count, kind, 200, "OK"))
            case "cancel" if leg.state == "calling":
                leg.state = "ended"
                call.leg_cancelled(leg, None)
            case "ack" if leg.state == "answered":
                leg.state = "confirmed"
                call.leg_confirmed(leg)
            case "bye" if leg.state in ("answered", "confirmed"):
                leg.state = "ended"
                call.leg_ended(leg, LegEnded("remote_bye", None, ""))

    async def run(self):
        for _ in range(self.dice.randrange(2, 14)):
            self._step()
            await self._pause()
        if self.call.termination is None:
            await self.call.hangup()
        async with asyncio.timeout(20):
            await asyncio.gather(*self.asked)
            await self.call.wait_closed()


@pytest.mark.parametrize("first", range(0, 200, 25))
async def test_a_call_ends_once_and_leaves_nothing(table, first, monkeypatch, caplog):
    start, dice = ScriptedEngine.start, random.Random(first)

    async def warm(self, *arguments):
        for _ in range(dice.choice([0, 0, 3, 10])):
            await asyncio.sleep(0)
        await start(self, *arguments)

    monkeypatch.setattr(ScriptedEngine, "start", warm)
    before = asyncio.all_tasks()
    for seed in range(first, first + 25):
        schedule = Schedule(table, seed)
        await schedule.run()
        call, asked = schedule.call, [one[0] for one in schedule.leg.asked]
        assert call.termination is not None, seed
        ended = [event for event in table.announcer.events if event.type == "realtime.call.ended"]
        assert [event.data["call_id"] for event in ended].count(call.id) == 1, seed
        assert asked.count("ring") == 1, (seed, asked)
        assert asked.count("answer") + asked.count("refuse") <= 1, (seed, asked)
        assert asked.count("hangup") <= 1, (seed, asked)
        assert call._agent.runner is None, seed
        assert table.manager.live == 0, seed
    async with asyncio.timeout(30):
        ports = table.manager._services.ports
        while ports.free < ports.total or asyncio.all_tasks() != before:
            await asyncio.sleep(0.01)
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
