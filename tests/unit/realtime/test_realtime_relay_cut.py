"""An upstream that is lost after any one of its events: what clients are told is whole all the same (rows O04, O12)."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from offhook.realtime.engine import UpstreamEvent
from offhook.realtime.outbox import PlayAudio, ServerEvent
from testbed.protocol import Strictness, check_order, validate
from testbed.relay_line import RelayLine
from testbed.upstream import Handshake, UpstreamSession

Event = dict[str, Any]

SOUND = bytes(1600)
"200 ms."


class Wire:
    """Where an upstream's session sends to, instead of a socket."""

    async def send(self, frame: str) -> None:
        """Take a frame; the session keeps what it sent."""


async def _talk(session: UpstreamSession) -> None:
    await session.turn("When are you open?")
    await session.call_tool("look_up", '{"day": "monday"}')
    item_id = await session.begin()
    await session.say(item_id, SOUND, piece=800)
    await session.finish(item_id, "From nine to five.")
    await session.turn("Thank you.")
    item_id = await session.begin()
    await session.say(item_id, SOUND)
    await session.interrupt(item_id)


async def _answer(session: UpstreamSession) -> None:
    item_id = await session.begin()
    await session.say(item_id, SOUND)
    await session.finish(item_id, "Here I am again.")


def _sent(story: Any) -> list[Event]:
    wire: Any = Wire()
    session = UpstreamSession(wire, Handshake(0.0, "/v1/realtime", {}, {}, 101))
    session.session["audio"]["output"]["format"] = {"type": "audio/pcmu"}
    asyncio.run(story(session))
    return session.sent


TALK = _sent(_talk)
ANSWER = _sent(_answer)


def _say(line: RelayLine, event: Event) -> None:
    audio = base64.b64decode(event["delta"]) if event["type"] == "response.output_audio.delta" else b""
    line.relay.receive_engine_event(UpstreamEvent(json.loads(json.dumps(event)), audio), line.now)
    line.take()


def _play_all(line: RelayLine) -> None:
    """Everything that was handed to the phone is heard."""
    queued = sum(len(output.audio) for output in line.kinds(PlayAudio))
    line.relay.playout_progress(queued, line.now)
    line.relay.playout_drained(queued, line.now)
    line.take()


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "unheard"])
@pytest.mark.parametrize("after", range(len(TALK) + 1))
def test_what_had_begun_is_ended_once_wherever_the_upstream_is_lost(after: int, heard: bool) -> None:
    line = RelayLine()
    for event in TALK[:after]:
        _say(line, event)
    if heard:
        _play_all(line)
    line.lose()
    line.reopen()
    for event in ANSWER:
        _say(line, event)
    _play_all(line)
    line.relay.close("hung up", line.now)
    line.wait(2.0)

    told = [output.event for output in line.outputs if isinstance(output, ServerEvent)]
    for event in told:
        if event["type"] != "response.output_audio.delta":
            validate(json.dumps(event).encode(), Strictness())
    check_order(told)
    assert "Here I am again." in [event.get("transcript") for event in told]
