"""`examples/screening/app.py` as it stands, on a node with a scripted voice: one caller after the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import Node, Phone, Seat
from testbed.node import EVENTS
from testbed.phone import PhoneCall
from testbed.recordings import parse_wav
from testbed.screening import TARGET, messages_of, screening_app
from testbed.waiting import until


def turn(decision: str, says: str) -> dict[str, Any]:
    arguments = json.dumps({"decision": decision, "caller_name": "Anna", "reason": "a meeting"})
    return {"says": says, "calls": [{"name": "make_screening_decision", "arguments": arguments}]}


SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "allow": [turn("ALLOW", "I put you through.")],
    "allow without a word": [turn("ALLOW", ""), {"says": "I put you through."}],
    "reject": [turn("REJECT", "No, thank you.")],
}
MESSAGE = "Please call me back."
GOODBYE = "Thank you, goodbye."
ASKING: dict[str, list[dict[str, Any]]] = {
    "voicemail": [turn("VOICEMAIL", "Leave a message.")],
    "voicemail without a word": [turn("VOICEMAIL", ""), {"says": "Leave a message."}],
}
"How a caller is asked for a message."


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


# Messages.


@pytest.fixture(params=ASKING)
def asking(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return ASKING[request.param]


def message_script(asking: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "greeting": "Who is it?",
        "turns": [
            {"hears": "It is Anna.", "replies": asking},
            {"hears": MESSAGE, "replies": [{"says": GOODBYE}]},
        ],
    }


async def left_message(phone: Phone, seat: Seat) -> None:
    """Be asked for a message, leave one of 1.3 s with a pause in it, and hear a goodbye."""
    call, spoken = await screened(phone, seat)
    await call.hears_sound(300, since=spoken)
    await call.hears_silence(500)
    began = call.speak(400)
    await asyncio.sleep(began - asyncio.get_running_loop().time() + 0.9)
    assert call.alive
    spoken = call.speak(400)
    await call.ended(15)
    (bye,) = call.received("BYE")
    assert call.received("REFER") == []
    assert call.loud_ms(began, spoken) == 0
    assert call.loud_ms(spoken, bye.at) >= 60 * len(GOODBYE) * 0.7


async def test_a_message_is_asked_for_recorded_and_kept(tmp_path: Path, asking: list[dict[str, Any]]) -> None:
    events = (*EVENTS, "realtime.call.recording.saved")
    with Node(tmp_path, script=message_script(asking), events=events) as node, screening_app(node) as seat:
        async with Phone(node) as phone:
            await left_message(phone, seat)
        (call,) = (await node.get(seat, "/realtime/calls"))["data"]
        file = messages_of(node) / f"{call['id']}.wav"
        size = (await node.get(seat, f"/realtime/calls/{call['id']}/recording"))["bytes"]
        await until(lambda: file.exists() and file.stat().st_size == size)
        kept = json.loads(file.with_suffix(".json").read_text())
        assert kept == {
            "decision": "VOICEMAIL",
            "caller_name": "Anna",
            "reason": "a meeting",
            "text": MESSAGE,
        }
        sound = parse_wav(file.read_bytes())
        # The two halves of the message, after the sentence that asked for it, and then the goodbye.
        assert 700 <= sound.loud_ms(sound.caller) <= 900
        ends = sound.first_ms(sound.caller) + 1_400
        assert sound.loud_ms(sound.agent, 0, ends) == 0
        assert sound.loud_ms(sound.agent, ends) >= 60 * len(GOODBYE) * 0.7


async def test_where_calls_cannot_be_recorded_a_message_is_kept_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFHOOK_SERVER__DATABASE", "none")
    script = message_script(ASKING["voicemail"])
    with Node(tmp_path, script=script) as node, screening_app(node) as seat:
        async with Phone(node) as phone:
            await left_message(phone, seat)
        (call,) = (await node.get(seat, "/realtime/calls"))["data"]
        file = messages_of(node) / f"{call['id']}.json"
        await until(lambda: json.loads(file.read_text())["text"] == MESSAGE)
        assert not file.with_suffix(".wav").exists()
