"""`examples/screening/app.py` as it stands, on a node with a scripted voice: one caller after the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import Node, Phone, Seat
from testbed.phone import PhoneCall
from testbed.screening import TARGET, screening_app


def turn(decision: str, says: str) -> dict[str, Any]:
    arguments = json.dumps({"decision": decision, "caller_name": "Anna", "reason": "a meeting"})
    return {"says": says, "calls": [{"name": "make_screening_decision", "arguments": arguments}]}


SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "allow": [turn("ALLOW", "I put you through.")],
    "allow without a word": [turn("ALLOW", ""), {"says": "I put you through."}],
    "reject": [turn("REJECT", "No, thank you.")],
    "voicemail": [turn("VOICEMAIL", "I will tell them.")],
}


@pytest.fixture(params=SCRIPTS)
def story(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def screening_node(story: str, tmp_path: Path) -> Iterator[Node]:
    script = {"greeting": "Who is it?", "turns": [{"hears": "It is Anna.", "replies": SCRIPTS[story]}]}
    with Node(tmp_path, script=script) as node:
        yield node


@pytest.fixture
def seat(screening_node: Node) -> Iterator[Seat]:
    with screening_app(screening_node) as seat:
        yield seat


async def screened(phone: Phone, seat: Seat) -> tuple[PhoneCall, float]:
    """Place a call, answer the greeting; return when the caller had finished."""
    call = await phone.dial(seat.project)
    await call.answered()
    await call.hears_sound(200)
    await call.hears_silence(300)
    spoken = call_ends = call.speak(600)
    await asyncio.sleep(max(0.0, call_ends - asyncio.get_running_loop().time()))
    return call, spoken


async def test_the_caller_hears_the_last_sentence_and_then_what_was_decided(
    screening_node: Node, seat: Seat, story: str
) -> None:
    sentence = next(reply["says"] for reply in SCRIPTS[story] if reply["says"])
    async with Phone(screening_node) as phone:
        for _ in range(2 if story == "allow" else 1):  # the second call must fare as the first did
            call, spoken = await screened(phone, seat)
            await call.ended(10)
            refers, byes = call.received("REFER"), call.received("BYE")
            assert len(byes) == 1
            if story.startswith("allow"):
                assert [wire.message.headers.get("Refer-To") for wire in refers] == [f"<{TARGET}>"]
            else:
                assert refers == []
            end = (refers or byes)[0].at
            # The scripted voice takes 60 ms for a letter; silence between words does not count as sound.
            assert call.loud_ms(spoken, end) >= 60 * len(sentence) * 0.7
            # What comes later than the message has long been sent: it waited in the phone's jitter buffer.
            assert call.loud_ms(end) <= 200
