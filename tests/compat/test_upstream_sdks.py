"""
The SDKs on the sideband of a call whose voice is an upstream: what they say goes up, what comes down satisfies them.

Each event is judged by the types of openai-python or by openai-agents' own validator, and all of them by the rules of
order (API section 5).
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from agents.realtime import RealtimeToolEnd
from websockets.asyncio.client import connect

from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband, Socket
from testbed import agents_app as testbed_app
from testbed.agents_app import AgentsApp, raw_event
from testbed.protocol import check_order
from testbed.script import TOOL, TOOL_ARGUMENTS
from testbed.upstream import Upstream, UpstreamSession

Event = dict[str, Any]

KEY = "sk-upstream-sdks-3Lk9"
LOUD = bytes([0x10, 0x90] * 80)
"A frame of sound, PCMU."
FUNCTION = {"type": "function", "name": TOOL, "description": "", "parameters": {"type": "object"}}


@pytest.fixture(scope="module")
def address() -> Iterator[socket.socket]:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    yield bound
    bound.close()


@pytest.fixture(scope="module")
def upstream_node(tmp_path_factory: pytest.TempPathFactory, address: socket.socket) -> Iterator[Node]:
    engine = f"""
        kind = "scripted"
        [upstreams.hosted]
        url = "ws://127.0.0.1:{address.getsockname()[1]}/v1/realtime"
        api_key_env = "TEST_KEY_SDKS"
        [models]
        "*" = "hosted"
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY_SDKS", KEY)
        with Node(tmp_path_factory.mktemp("sdks"), engine=engine, seats=12) as running:
            yield running


@pytest.fixture
async def upstream(address: socket.socket) -> AsyncIterator[Upstream]:
    async with Upstream(address, key=KEY) as listening:
        yield listening


@pytest.fixture
async def developer(upstream_node: Node) -> AsyncIterator[DeveloperApp]:
    async with DeveloperApp(upstream_node) as listening:
        yield listening


@pytest.fixture
async def caller(upstream_node: Node) -> AsyncIterator[Phone]:
    async with Phone(upstream_node) as ready:
        yield ready


@pytest.fixture
async def agents_app(upstream_node: Node, caplog: pytest.LogCaptureFixture) -> AsyncIterator[AgentsApp]:
    async with testbed_app.agents_app(upstream_node, caplog.records) as app:
        yield app


async def _say(session: UpstreamSession, words: str, frames: int = 15) -> Event:
    """Answer with a short sound; return `response.done`."""
    item_id = await session.begin()
    await session.say(item_id, LOUD * frames, piece=700)
    done = await session.finish(item_id, words)
    await session.send("rate_limits.updated", rate_limits=[])
    return done


async def _lose(session: UpstreamSession, how: str) -> None:
    await (session.close(1006) if how == "cut" else session.expire())


def _after(session: UpstreamSession) -> int:
    return len(session.received)


# openai-agents.


def _output_of(call: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    """What this call's tool gave; outputs of earlier ones may still be on their way to a reopened upstream."""
    return lambda event: (
        event["item"]["type"] == "function_call_output" and event["item"]["call_id"] == call["call_id"]
    )


async def _agent_uses_its_tool(app: AgentsApp, session: UpstreamSession) -> None:
    """The caller asks; the upstream calls the tool; the SDK runs it, sends its output and asks for an answer."""
    since, ran = _after(session), len(app.tool_calls)
    await session.turn("When are you open?")
    called = await session.call_tool(TOOL, TOOL_ARGUMENTS)
    created = await session.wait_for("conversation.item.create", _output_of(called), after=since)
    assert (created["item"]["call_id"], created["item"]["output"]) == (called["call_id"], "nine to five")
    await session.wait_for("response.create", after=since)
    assert app.tool_calls[ran:] == [json.loads(TOOL_ARGUMENTS)["day"]]


@pytest.mark.parametrize("loss", ["cut", "cap"])
async def test_an_agent_on_a_call_whose_upstream_is_lost(
    agents_app: AgentsApp, caller: Phone, upstream: Upstream, loss: str
) -> None:
    call = await caller.dial(agents_app.seat.project)
    session = await upstream.opened()
    await call.answered()

    # Row X07: what the SDK sends right after it attached.
    greeting = await session.wait_for("response.create")
    assert greeting["response"] == {"instructions": "Greet the caller."}
    await session.wait_for("session.update", lambda event: "tracing" in event["session"])
    accepted, attached, traced = (event["session"] for event in session.of_type("session.update"))
    assert [tool["name"] for tool in attached["tools"]] == [TOOL]
    assert attached["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
    assert traced["tracing"] == "auto"
    assert not [one for one in (accepted, attached, traced) if "model" in one]
    assert not [side for side in attached["audio"].values() if "format" in side]
    await _say(session, "Good morning.")
    assert (await agents_app.raw("response.done"))["response"]["status"] == "completed"
    await agents_app.raw("output_audio_buffer.stopped")
    await call.hears_sound(200)

    await _agent_uses_its_tool(agents_app, session)

    # The caller speaks over the answer.
    item_id = await session.begin()
    began = time.monotonic()
    await session.say(item_id, LOUD * 150)
    await call.hears_sound(200, since=began)
    await session.interrupt(item_id)
    truncate = await session.wait_for("conversation.item.truncate")
    assert 0 < truncate["audio_end_ms"] < 3000
    await agents_app.raw("output_audio_buffer.cleared")
    assert (await agents_app.raw("response.done"))["response"]["status"] == "cancelled"
    await agents_app.raw("conversation.item.truncated")
    call.press("5")
    assert (await agents_app.raw("input_audio_buffer.dtmf_event_received"))["event"] == "5"

    # The upstream is lost in the middle of an answer.
    item_id = await session.begin()
    await session.say(item_id, LOUD * 10)
    await agents_app.raw("output_audio_buffer.started")
    await _lose(session, loss)
    assert (await agents_app.raw("response.done"))["response"]["status"] == "failed"
    again = await upstream.opened()
    update = (await again.wait_for("session.update"))["session"]
    assert [tool["name"] for tool in update["tools"]] == [TOOL]
    assert update["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
    await agents_app.raw("session.updated")

    await _agent_uses_its_tool(agents_app, again)
    await _say(again, "From nine to five.")
    assert (await agents_app.raw("response.done"))["response"]["output"][0]["type"] == "function_call"
    assert (await agents_app.raw("response.done"))["response"]["status"] == "completed"
    await agents_app.raw("output_audio_buffer.stopped")
    assert len([event for event in agents_app.seen if isinstance(event, RealtimeToolEnd)]) == 2

    call.hang_up()
    await asyncio.wait_for(agents_app.ended.wait(), 15)
    check_order([data for event in agents_app.seen if (data := raw_event(event)) is not None])


async def test_an_agents_tool_that_ends_while_the_upstream_is_away(
    agents_app: AgentsApp, caller: Phone, upstream: Upstream
) -> None:
    """Its output and the wish for an answer wait, and go up once, behind the call that they answer."""
    call = await caller.dial(agents_app.seat.project)
    session = await upstream.opened()
    await call.answered()
    await session.wait_for("response.create")
    await _say(session, "Good morning.")
    await agents_app.raw("output_audio_buffer.stopped")

    upstream.plan.append("late")
    await session.turn("When are you open?")
    called = await session.call_tool(TOOL, TOOL_ARGUMENTS)
    await session.close(1006)
    again = await upstream.opened()
    async with asyncio.timeout(15):
        while not [event for event in agents_app.seen if isinstance(event, RealtimeToolEnd)]:
            await asyncio.sleep(0.01)
    await again.created()
    await again.wait_for("response.create")
    await _say(again, "From nine to five.")
    await agents_app.raw("output_audio_buffer.stopped")

    items = [event["item"] for event in again.of_type("conversation.item.create")]
    assert [item["type"] for item in items[-2:]] == ["function_call", "function_call_output"]
    assert [item["call_id"] for item in items[-2:]] == [called["call_id"]] * 2
    assert len(again.of_type("response.create")) == 1
    call.hang_up()
    await asyncio.wait_for(agents_app.ended.wait(), 15)
    check_order([data for event in agents_app.seen if (data := raw_event(event)) is not None])


# openai-python.


async def _answered(app: DeveloperApp, phone: Phone) -> tuple[PhoneCall, str]:
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id, instructions="Be kind.", tools=[FUNCTION])
    await call.answered()
    return call, call_id


async def _app_uses_its_tool(sideband: Sideband, session: UpstreamSession) -> None:
    since, seen = _after(session), len(sideband.events)
    await session.turn("When are you open?")
    called = await session.call_tool(TOOL, TOOL_ARGUMENTS)
    done = await sideband.wait_for("response.done", after=seen)
    assert done["response"]["output"] == [called]
    output: Any = {"type": "function_call_output", "call_id": called["call_id"], "output": "nine to five"}
    await sideband.connection.conversation.item.create(item=output)
    await sideband.connection.response.create()
    created = await session.wait_for("conversation.item.create", _output_of(called), after=since)
    assert created["item"] == output
    await session.wait_for("response.create", after=since)
    told = await sideband.wait_for(
        "conversation.item.done", lambda event: event["item"]["type"] == "function_call_output", after=seen
    )
    assert told["item"]["call_id"] == called["call_id"]


@pytest.mark.parametrize("loss", ["cut", "cap"])
async def test_openai_python_on_a_call_whose_upstream_is_lost(
    developer: DeveloperApp, caller: Phone, upstream: Upstream, loss: str
) -> None:
    call, call_id = await _answered(developer, caller)
    session = await upstream.opened()
    async with Sideband(developer.client, call_id) as sideband:
        await sideband.connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
        updated = await sideband.wait_for("session.updated")
        assert updated["session"]["instructions"] == "Be brief."
        await sideband.connection.response.create(response={"instructions": "Greet the caller."})
        greeting = await session.wait_for("response.create")
        assert greeting["response"] == {"instructions": "Greet the caller."}
        await _say(session, "Good morning.")
        await sideband.wait_for("output_audio_buffer.stopped")
        await _app_uses_its_tool(sideband, session)

        item_id = await session.begin()
        began = time.monotonic()
        await session.say(item_id, LOUD * 150)
        await call.hears_sound(200, since=began)
        await session.interrupt(item_id)
        await sideband.wait_for("conversation.item.truncated")
        call.press("7")
        assert (await sideband.wait_for("input_audio_buffer.dtmf_event_received"))["event"] == "7"

        seen = len(sideband.events)
        item_id = await session.begin()
        await session.say(item_id, LOUD * 10)
        await sideband.wait_for("output_audio_buffer.started", after=seen)
        await _lose(session, loss)
        failed = await sideband.wait_for("response.done", after=seen)
        assert failed["response"]["status"] == "failed"
        again = await upstream.opened()
        await sideband.wait_for("session.updated", after=seen)
        await _app_uses_its_tool(sideband, again)
        seen = len(sideband.events)
        await _say(again, "From nine to five.")
        await sideband.wait_for("output_audio_buffer.stopped", after=seen)

        await developer.client.realtime.calls.hangup(call_id)
        await call.ended()
        assert (await sideband.wait_closed())[0] == 1000
    assert "error" not in sideband.types


# Frames of other versions (rows X08 and X09).


OLD_PYTHON: Event = {
    "type": "realtime",
    "model": "gpt-realtime",
    "instructions": "You are an old agent.",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": None,
            "transcription": {"model": "gpt-4o-mini-transcribe"},
            "turn_detection": {"type": "semantic_vad"},
        },
        "output": {"format": None, "voice": "ash"},
    },
    "tools": [FUNCTION],
}
PCM = {"type": "audio/pcm", "rate": 24000}
JAVASCRIPT: Event = {
    "type": "realtime",
    "model": "gpt-realtime-2.1",
    "instructions": "You are a JavaScript agent.",
    "output_modalities": ["audio"],
    "audio": {
        "input": {"format": PCM, "noise_reduction": None, "turn_detection": {"type": "semantic_vad"}},
        "output": {"format": PCM, "voice": "ash", "speed": 1},
    },
    "tools": [FUNCTION],
}


def _without_formats(session: Event) -> Event:
    """What is left for the upstream: the line's formats and the connection's model stand."""
    audio = {
        side: {name: value for name, value in part.items() if name != "format"}
        for side, part in session["audio"].items()
    }
    return {name: value for name, value in session.items() if name != "model"} | {"audio": audio}


@pytest.mark.parametrize("frames", [OLD_PYTHON, JAVASCRIPT], ids=["agents-python-0.6.5", "agents-js-0.20.0"])
async def test_frames_of_other_agents_sdks(
    developer: DeveloperApp, caller: Phone, upstream: Upstream, frames: Event
) -> None:
    call, call_id = await _answered(developer, caller)
    session = await upstream.opened()
    url = f"{developer.node.base_url.replace('http', 'ws', 1)}/realtime?call_id={call_id}"
    protocols: Any = ["realtime", f"openai-insecure-api-key.{developer.seat.api_key}"]
    async with connect(url, subprotocols=protocols) as connection:
        sideband = Socket(connection)
        await sideband.send(type="session.update", session=frames)
        await sideband.send(type="response.create")
        await sideband.send(
            type="session.update", session={"type": "realtime", "model": "gpt-realtime", "tracing": "auto"}
        )
        await sideband.until("session.updated")
        await session.wait_for("session.update", lambda event: event["session"].get("tracing") == "auto")
        ups = [event for event in session.received if event["type"] != "input_audio_buffer.append"]
        assert ups[1:] == [
            {"type": "session.update", "session": _without_formats(frames)},
            {"type": "response.create"},
            {"type": "session.update", "session": {"type": "realtime", "tracing": "auto"}},
        ]
        assert session.session["audio"]["output"]["format"] == {"type": "audio/pcmu"}
        item_id = await session.begin()
        await session.say(item_id, LOUD * 100)
        await call.hears_sound(100)
        await sideband.until("output_audio_buffer.started")
        # The way in which the JavaScript SDK interrupts (row E17).
        await sideband.send(type="output_audio_buffer.clear")
        await sideband.until("output_audio_buffer.cleared")
        cancel = await session.wait_for("response.cancel")
        await session.finish(item_id, status="cancelled")
        done = await sideband.until("response.done")
        assert cancel["response_id"] == done["response"]["id"]
        await call.hears_silence(200)
    assert "error" not in [event["type"] for event in sideband.events]
    check_order(sideband.events)
