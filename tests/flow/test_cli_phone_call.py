"""The command-line phone against a callee of our own rooms, on loopback: speech, keys, REFER, and every kind of end."""

import asyncio
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offhook.audio import g711, tones, wav
from offhook.cli.phone.phone import CallPlan, Digits, Outcome, Phone
from offhook.cli.phone.sound import Utterance, level_db
from offhook.cli.phone.turns import FRAME_S, HeardEnded, TurnTaking
from offhook.clock import SystemClock
from offhook.media import negotiate
from offhook.media.pacer import Pacer
from offhook.media.port import MediaPort, PortPool
from offhook.sip.endpoint import Endpoint, EndpointConfig, Leg, LegEnded
from offhook.sip.message import Request
from offhook.sip.refer import ReferUpdate
from offhook.sip.uri import SipUri

BEEP = g711.encode(tones.tone(440, 400), "PCMU")


class Callee:
    """Answers, beeps, and beeps again after all that it hears; after `beeps` of them it does what it is told."""

    def __init__(self, *, beeps: int = 2, then: str = "wait", refuse: int | None = None) -> None:
        self.beeps = beeps
        self.then = then
        self.refuse = refuse
        self.heard: list[HeardEnded] = []
        self.digits = ""
        self.updates: list[ReferUpdate] = []
        self.refer_status: int | None = None
        self.ended: LegEnded | None = None
        self._clock = SystemClock()
        self._port: MediaPort | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    async def start(self) -> str:
        """Return the URI to call."""
        self.endpoint = Endpoint(
            EndpointConfig(listen=("udp:127.0.0.1:0",)), clock=self._clock, on_invite=self._invited
        )
        await self.endpoint.start()
        self._pacer = Pacer()
        self._pacer.start()
        self._port = PortPool("127.0.0.1", 32_500, 32_698).open()
        return f"sip:callee@127.0.0.1:{self.endpoint.addresses[0].port}"

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._port is not None
        self._port.close()
        self._pacer.close()
        await self.endpoint.close()

    def _invited(self, leg: Leg) -> None:
        leg.listener = self  # type: ignore[assignment]
        if self.refuse is not None:
            leg.refuse(self.refuse, headers=[("Reason", 'SIP;cause=486;text="busy"')])
            return
        assert self._port is not None
        local = negotiate.LocalMedia("127.0.0.1", self._port.port, 1, 1)
        answer = negotiate.answer(leg.invite.body, local)
        self._leg, self._law = leg, answer.plan.codec
        self._turns = TurnTaking(0.0, gap_s=0.3)
        self._frames = 0
        self._port.start(
            answer.plan,
            pacer=self._pacer,
            on_frame=self._hear,
            on_digit=self._digit,
            on_drained=lambda: None,
        )
        leg.ring()
        leg.answer(answer.sdp)

    def leg_confirmed(self, leg: Leg) -> None:
        assert self._port is not None
        self._port.play(g711.transcode(BEEP, "PCMU", self._law))
        self._beeped()

    def leg_ended(self, leg: Leg, ended: LegEnded) -> None:
        self.ended = ended

    def leg_released(self, leg: Leg) -> None:
        """Tests look at a call when it is over."""

    def leg_refer_updated(self, leg: Leg, update: ReferUpdate) -> None:
        self.updates.append(update)
        if update.kind == "completed":
            leg.hangup()

    def leg_requested(self, leg: Leg, request: Request) -> None:
        leg.respond(request, 501)

    def _digit(self, digit: str) -> None:
        self.digits += digit

    def _hear(self, audio: bytes) -> None:
        # By the sound's own clock: on a busy machine frames come late and together.
        self._frames += 1
        for event in self._turns.hear(level_db(g711.decode(audio, self._law)), self._frames * FRAME_S):
            if isinstance(event, HeardEnded):
                self.heard.append(event)
                assert self._port is not None
                self._port.play(g711.transcode(BEEP, "PCMU", self._law))
                self._beeped()

    def _beeped(self) -> None:
        self.beeps -= 1
        if self.beeps == 0 and self.then == "hang up":
            self._leg.hangup()
        if self.beeps == 0 and self.then == "refer":
            self._tasks.append(asyncio.create_task(self._refer()))

    async def _refer(self) -> None:
        answer = await self._leg.refer("<tel:+15550100>")
        self.refer_status = answer.status
        if answer.status >= 300:
            self._leg.hangup()


@pytest.fixture
def events() -> list[tuple[str, dict[str, Any]]]:
    return []


def said(milliseconds: float = 600) -> Utterance:
    return Utterance("hm", tones.tone(700, milliseconds))


async def call(callee: Callee, events: list[tuple[str, dict[str, Any]]], **plan: Any) -> Outcome:
    uri = await callee.start()

    def report(event: str, **fields: Any) -> None:
        events.append((event, fields))

    try:
        async with asyncio.timeout(20):
            return await Phone(
                CallPlan(uri=SipUri.parse(uri), gap_s=0.3, patience_s=1.5, **plan), report
            ).call()
    finally:
        await callee.close()


def named(events: list[tuple[str, dict[str, Any]]], name: str) -> list[dict[str, Any]]:
    return [fields for event, fields in events if event == name]


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
async def test_a_conversation_is_spoken_heard_measured_and_recorded(
    codec: str, events: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    path = tmp_path / "new" / "call.wav"
    callee = Callee(beeps=9)
    outcome = await call(
        callee, events, turns=[said(), said(), Digits("1#")], codec=codec, record=path, hangup_after_s=0.3
    )
    assert outcome.orderly
    assert outcome.cause == "the caller hung up"
    assert outcome.turns == 3
    assert callee.digits == "1#"
    assert [abs(one.ended_at - one.started_at - 0.6) < 0.2 for one in callee.heard] == [True, True]
    # The callee waits 300 ms to be sure that we have finished. How much more it takes is this machine's affair.
    assert len(outcome.response_ms) == 2
    assert all(280 <= ms <= 15_000 for ms in outcome.response_ms)
    titles = [fields["title"].split(" sip:")[0] for fields in named(events, "sip")]
    assert [re.sub(r"^SIP/2.0 ", "", title) for title in titles if "100" not in title] == [
        "INVITE",
        "180 Ringing",
        "200 OK",
        "ACK",
        "BYE",
        "200 OK",
    ]
    stereo, rate = wav.read(path.read_bytes())
    voiced = [
        sum(
            level_db(np.ascontiguousarray(stereo[at : at + 160, channel])) > -45
            for at in range(0, len(stereo), 160)
        )
        for channel in (0, 1)
    ]
    assert rate == 8000
    assert 55 <= voiced[0] <= 66  # two times 600 ms in frames of 20 ms
    assert 50 <= voiced[1] <= 75  # three times 400 ms


async def test_the_phone_lets_itself_be_transferred(events: list[tuple[str, dict[str, Any]]]) -> None:
    callee = Callee(beeps=2, then="refer")
    outcome = await call(callee, events, turns=[said()])
    assert outcome.orderly
    assert outcome.transferred
    assert callee.refer_status == 202
    assert [update.sip_status for update in callee.updates] == [202, 100, 180, 200]
    assert [(fields["status"], fields["answer"]) for fields in named(events, "notify")] == [
        (100, 200),
        (180, 200),
        (200, 200),
    ]
    [refer] = named(events, "refer")
    assert "tel:+15550100" in refer["target"]


async def test_a_transfer_can_be_played_to_fail_or_be_refused(
    events: list[tuple[str, dict[str, Any]]],
) -> None:
    failing = Callee(beeps=1, then="refer")
    outcome = await call(failing, events, refer_outcome=486, hangup_after_s=1.5)
    assert outcome.orderly
    assert not outcome.transferred
    assert failing.updates[-1].kind == "failed"
    assert failing.updates[-1].sip_status == 486
    refused = Callee(beeps=1, then="refer")
    outcome = await call(refused, events, refuse_refer=603)
    assert refused.refer_status == 603
    assert not outcome.transferred


async def test_a_call_that_is_refused_is_not_orderly(events: list[tuple[str, dict[str, Any]]]) -> None:
    outcome = await call(Callee(refuse=486), events, turns=[said()])
    assert not outcome.answered
    assert not outcome.orderly
    assert outcome.status == 486
    assert "busy" in outcome.cause


async def test_an_end_before_everything_was_said_is_not_orderly(
    events: list[tuple[str, dict[str, Any]]],
) -> None:
    outcome = await call(Callee(beeps=2, then="hang up"), events, turns=[said(), said()])
    assert outcome.answered
    assert not outcome.orderly
    assert "before the caller had said everything" in outcome.cause


async def test_a_call_always_ends(events: list[tuple[str, dict[str, Any]]]) -> None:
    callee = Callee(beeps=9)
    outcome = await call(callee, events, max_s=1.5)
    assert not outcome.orderly
    assert "--max-seconds" in outcome.cause
    assert callee.ended is not None
    assert callee.ended.cause == "remote_bye"
