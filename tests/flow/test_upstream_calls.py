"""Real calls whose model is an upstream Realtime API, through all that such an API may do."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from offhook.media import negotiate
from offhook.realtime.engine import EngineFailed, EngineStart, ReopenUpstream, UpstreamNote, UpstreamOpened
from offhook.realtime.engines.upstream.engine import UpstreamEngine
from offhook.realtime.engines.upstream.hold import load_hold_sentence
from offhook.realtime.engines.upstream.target import Upstream as Target
from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband
from testbed.rtp import Rtp
from testbed.upstream import Upstream, UpstreamSession

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = {
    "first": "sk-upstream-first-0d7Kq",
    "second": "sk-upstream-second-8Rz2",
    "azure": "azurekey-0a1b2c3d4e5f",
    "azure-legacy": "azurekey-legacy-99aa",
    "closed": "sk-upstream-closed-7Tt1",
}
DIGITS = 101
"The payload type of telephone-event in the phone's offer."
TOOL = {
    "type": "function",
    "name": "look_up_opening_hours",
    "description": "When are we open?",
    "parameters": {"type": "object", "properties": {"day": {"type": "string"}}},
}
SESSION: dict[str, Any] = {
    "instructions": "Answer the phone for a bakery.",
    "audio": {
        "input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 450}},
        "output": {"voice": "cedar"},
    },
    "tools": [TOOL],
}
MCP_SECRETS = ("mcp-token-5c1e77", "mcp-tenant-90ab12")
MCP = {
    "type": "mcp",
    "server_label": "stock",
    "server_url": "https://mcp.example.com/sse",
    "authorization": MCP_SECRETS[0],
    "headers": {"x-tenant": MCP_SECRETS[1]},
    "require_approval": "never",
}
LOUD = bytes([0x10, 0x90] * 80)
"A frame of sound."


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, socket.socket]]:
    """Where the upstreams will be; the node is told before they are there. Nobody ever listens at `closed`."""
    bound = {name: socket.socket() for name in KEYS}
    for one in bound.values():
        one.bind(("127.0.0.1", 0))
    yield bound
    for one in bound.values():
        one.close()


@pytest.fixture(scope="module")
def upstream_node(
    tmp_path_factory: pytest.TempPathFactory, addresses: dict[str, socket.socket]
) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("upstream-node")
    port = {name: one.getsockname()[1] for name, one in addresses.items()}
    (folder / "first.key").write_text(KEYS["first"] + "\n")
    with pytest.MonkeyPatch.context() as patch:
        for name, key in KEYS.items():
            patch.setenv(f"TEST_KEY_{name.upper().replace('-', '_')}", key)
        engine = f"""
            kind = "scripted"
            [upstreams.first]
            url = "ws://127.0.0.1:{port["first"]}/v1/realtime"
            api_key_file = {json.dumps(str(folder / "first.key"))}
            [upstreams.second]
            url = "ws://127.0.0.1:{port["second"]}/v1/realtime"
            api_key_env = "TEST_KEY_SECOND"
            model = "gpt-other"
            [upstreams.impatient]
            url = "ws://127.0.0.1:{port["first"]}/v1/realtime"
            api_key_env = "TEST_KEY_FIRST"
            silence_s = 0.7
            [upstreams.linear]
            url = "ws://127.0.0.1:{port["first"]}/v1/realtime"
            api_key_env = "TEST_KEY_FIRST"
            audio = "pcm"
            [upstreams.closed]
            url = "ws://127.0.0.1:{port["closed"]}/v1/realtime"
            api_key_env = "TEST_KEY_CLOSED"
            [upstreams.azure]
            url = "ws://127.0.0.1:{port["azure"]}/openai/v1/realtime"
            kind = "azure"
            deployment = "our-deployment"
            api_key_env = "TEST_KEY_AZURE"
            [upstreams.azure-legacy]
            url = "ws://127.0.0.1:{port["azure-legacy"]}/openai/realtime"
            kind = "azure"
            deployment = "our-deployment"
            api_version = "2025-04-01-preview"
            api_key_env = "TEST_KEY_AZURE_LEGACY"
            [models]
            "gpt-realtime" = "first"
            "linear" = "linear"
            "listed" = ["first", "second"]
            "impatient" = ["impatient", "second"]
            "closed-first" = ["closed", "second"]
            "on-azure" = "azure"
            "on-azure-legacy" = "azure-legacy"
        """
        with Node(folder, engine=engine, seats=40, ring_timeout_s=30) as running:
            yield running
    said = running.log_path.read_text() + (folder / "stdout").read_text()
    assert "call.upstream" in said
    assert not [key for key in (*KEYS.values(), *MCP_SECRETS) if key in said]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(upstream_node: Node) -> AsyncIterator[DeveloperApp]:
    """One app for all of these calls, which come one after the other."""
    async with DeveloperApp(upstream_node) as listening:
        yield listening


@dataclass
class Talk:
    """A call that is being accepted, or was: one end is the phone's RTP, the other the upstream's session."""

    app: DeveloperApp
    call: PhoneCall
    rtp: Rtp
    call_id: str
    sideband: Sideband
    upstream: Upstream
    session: UpstreamSession

    @property
    def remote(self) -> tuple[str, int]:
        return negotiate.complete(self.call.offer, self.call._answer.result().body).remote

    @property
    def audio(self) -> list[tuple[float, bytes]]:
        """Time and payload of each packet of sound that the phone got."""
        return [(at, data[12:]) for at, data, _ in self.rtp.came if len(data) == 172]

    async def hears(self, holds: Callable[[bytes], Any], what: str, timeout: float = 15.0) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not holds(b"".join(payload for _, payload in self.audio)):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"the phone did not hear {what}; {len(self.audio)} packets came") from None

    async def notes(self, word: str, timeout: float = 15.0) -> dict[str, Any]:
        """Return the timeline's first entry about upstreams that has a word in its title."""
        async with asyncio.timeout(timeout):
            while True:
                for entry in await self.app.node.timeline(self.app.seat, self.call_id):
                    if entry["kind"] == "upstream" and word in entry["title"]:
                        return entry
                await asyncio.sleep(0.02)


@asynccontextmanager
async def ringing(app: DeveloperApp) -> AsyncIterator[tuple[PhoneCall, Rtp, str]]:
    async with Phone(app.node) as phone, Rtp() as rtp:
        call = await phone.dial(app.seat.project, media_port=rtp.port)
        call_id = (await app.incoming()).call_id
        yield call, rtp, call_id
        said = json.dumps(await app.node.timeline(app.seat, call_id))
        said += json.dumps(await app.node.describe(app.seat, call_id))
        assert not [key for key in (*KEYS.values(), *MCP_SECRETS) if key in said]


@asynccontextmanager
async def talking(
    app: DeveloperApp, upstream: Upstream, *, events: str = "", **session: Any
) -> AsyncIterator[Talk]:
    async with AsyncExitStack() as stack:
        call, rtp, call_id = await stack.enter_async_context(ringing(app))
        await app.accept(call_id, **(SESSION | session))
        await call.answered()
        opened = await upstream.opened()
        sideband = await stack.enter_async_context(Sideband(app.client, call_id, events=events))
        await sideband.wait_for("session.created")
        talk = Talk(app, call, rtp, call_id, sideband, upstream, opened)
        yield talk
        assert not [key for key in KEYS.values() if key in json.dumps(sideband.events)]
        if call.alive:
            call.hang_up()
            assert (await sideband.wait_closed())[0] == 1000
            assert (await talk.session.gone())[0] == 1000


@pytest_asyncio.fixture(loop_scope="module")
async def first(addresses: dict[str, socket.socket]) -> AsyncIterator[Upstream]:
    async with Upstream(addresses["first"], key=KEYS["first"]) as upstream:
        yield upstream


@pytest_asyncio.fixture(loop_scope="module")
async def second(addresses: dict[str, socket.socket]) -> AsyncIterator[Upstream]:
    async with Upstream(addresses["second"], key=KEYS["second"]) as upstream:
        yield upstream


@pytest_asyncio.fixture(loop_scope="module")
async def talk(app: DeveloperApp, first: Upstream) -> AsyncIterator[Talk]:
    async with talking(app, first) as talk:
        yield talk


# Opening.


async def test_the_accept_body_goes_up_as_the_session_and_comes_back_as_the_upstreams(talk: Talk) -> None:
    asked = talk.session.handshake
    assert asked.query == {"model": "gpt-realtime"}
    assert "openai-beta" not in asked.headers

    update = (await talk.session.wait_for("session.update"))["session"]
    assert update["type"] == "realtime"
    assert update["instructions"] == SESSION["instructions"]
    assert update["tools"] == [TOOL]
    assert update["audio"]["output"]["voice"] == "cedar"
    assert update["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 450
    # The line's own codec, so that nothing is transcoded.
    assert update["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert update["audio"]["output"]["format"] == {"type": "audio/pcmu"}

    created = talk.sideband.events[0]
    assert created["type"] == "session.created"
    assert created["session"]["id"] == talk.session.id
    assert created["session"]["instructions"] == SESSION["instructions"]
    assert created["session"]["max_output_tokens"] == "inf"
    async with Sideband(talk.app.client, talk.call_id) as later:
        again = await later.wait_for("session.created")
        assert again["session"]["id"] == talk.session.id


async def test_session_created_is_the_upstreams_however_late(app: DeveloperApp, first: Upstream) -> None:
    first.plan.append("late")
    async with ringing(app) as (call, _, call_id):
        accepting = asyncio.create_task(app.accept(call_id, **SESSION))
        session = await first.opened()
        await call.rings()
        attaching = asyncio.create_task(_first_event(app, call_id))
        await asyncio.sleep(0.2)
        assert not attaching.done()
        await session.created()
        event = await asyncio.wait_for(attaching, 15)
        await accepting
        assert event["type"] == "session.created"
        assert event["session"]["id"] == session.id
        assert event["session"]["instructions"] == SESSION["instructions"]
        await call.answered()


async def test_a_caller_who_hangs_up_while_it_opens_leaves_no_connection(
    app: DeveloperApp, first: Upstream
) -> None:
    """Row R07."""
    first.plan.append("late")
    async with ringing(app) as (call, _, call_id):
        accepting = asyncio.create_task(app.accept(call_id, **SESSION))
        session = await first.opened()
        call.hang_up()
        await call.refused()
        await session.gone()
        await asyncio.gather(accepting, return_exceptions=True)


async def _first_event(app: DeveloperApp, call_id: str) -> dict[str, Any]:
    async with Sideband(app.client, call_id) as sideband:
        return await sideband.wait_for("session.created")


@pytest.mark.parametrize(("form", "model"), [("azure", "on-azure"), ("azure-legacy", "on-azure-legacy")])
async def test_azure_is_asked_in_its_own_form(
    app: DeveloperApp, addresses: dict[str, socket.socket], form: Any, model: str
) -> None:
    async with (
        Upstream(addresses[form], key=KEYS[form], form=form) as azure,
        talking(app, azure, model=model) as talk,
    ):
        query = talk.session.handshake.query
    assert "our-deployment" in (query.get("model"), query.get("deployment"))


async def test_azures_older_form_is_spoken_in_its_own_words(
    app: DeveloperApp, addresses: dict[str, socket.socket]
) -> None:
    """Rows G21, G22: the mock takes nothing else, and the sideband is judged as any other."""
    form = "azure-legacy"
    async with (
        Upstream(addresses[form], key=KEYS[form], form="azure-legacy") as azure,
        talking(app, azure, model="on-azure-legacy") as talk,
    ):
        update = (await talk.session.wait_for("session.update"))["session"]
        assert (update["voice"], update["input_audio_format"]) == ("cedar", "g711_ulaw")
        assert update["turn_detection"]["silence_duration_ms"] == 450
        created = talk.sideband.events[0]["session"]
        assert created["audio"]["output"]["voice"] == "cedar"
        assert created["tools"] == [TOOL]

        item_id = await talk.session.begin()
        await talk.session.say(item_id, LOUD * 10)
        await talk.session.finish(item_id, "Good morning.")
        await talk.hears(lambda heard: LOUD * 10 in heard, "the upstream's bytes")
        await talk.sideband.wait_for("output_audio_buffer.stopped")
        done = await talk.sideband.wait_for("response.done")
        content = [{"type": "output_audio", "transcript": "Good morning."}]
        assert done["response"]["output"][0]["content"] == content
        types = talk.sideband.types
        assert types.index("conversation.item.added") < types.index("conversation.item.done")
        assert types.index("conversation.item.done") < types.index("response.output_item.done")
        called = await talk.session.call_tool("look_up_opening_hours", "{}")
        arguments = await talk.sideband.wait_for("response.function_call_arguments.done")
        assert arguments["name"] == "look_up_opening_hours"
        output = {"type": "function_call_output", "call_id": called["call_id"], "output": "nine"}
        await talk.sideband.connection.conversation.item.create(item=output)
        await talk.sideband.wait_for(
            "conversation.item.done", lambda event: event["item"]["type"] == "function_call_output"
        )
        answer: Any = {"instructions": "Say when.", "output_modalities": ["audio"]}
        await talk.sideband.connection.response.create(response=answer)
        asked = await talk.session.wait_for("response.create")
        assert asked["response"] == {"instructions": "Say when.", "modalities": ["text", "audio"]}

        await talk.session.close(1006)
        talk.session = await azure.opened()
        await talk.session.wait_for(
            "conversation.item.create", lambda event: event["item"]["type"] == "function_call_output"
        )
        assert (await talk.session.wait_for("session.update"))["session"]["tools"] == [TOOL]


async def test_what_only_the_upstream_knows_goes_up_and_comes_down(
    app: DeveloperApp, first: Upstream
) -> None:
    """Rows E26 and G13: MCP tools, their events, and a prompt; what they hold for their servers stays unsaid."""
    prompt = {"id": "pmpt_1", "variables": {"city": "Bern"}}
    async with talking(app, first, tools=[TOOL, MCP], prompt=prompt) as talk:
        update = (await talk.session.wait_for("session.update"))["session"]
        assert update["tools"] == [TOOL, MCP]
        assert update["prompt"] == prompt
        assert MCP_SECRETS[0] not in json.dumps(talk.sideband.events[0])
        place = {"item_id": "item_mcp", "output_index": 0}
        listed = [
            await talk.session.send("mcp_list_tools.in_progress", item_id="item_list"),
            await talk.session.send("mcp_list_tools.completed", item_id="item_list"),
            await talk.session.send("response.mcp_call.in_progress", **place),
            await talk.session.send("response.mcp_call.completed", **place),
        ]
        await talk.sideband.wait_for("response.mcp_call.completed")
        assert [event for event in talk.sideband.events if "mcp" in event["type"]] == listed
        await talk.session.error(f"401 from stock for {MCP_SECRETS[0]}", "mcp_failed")
        await talk.sideband.wait_for("error")
        picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
        shown: Any = {"type": "message", "role": "user", "content": [picture]}
        await talk.sideband.connection.conversation.item.create(item=shown)
        assert (await talk.session.wait_for("conversation.item.create"))["item"] == shown
        await talk.sideband.wait_for("conversation.item.done")

        await talk.session.close(1006)
        talk.session = await first.opened()
        again = (await talk.session.wait_for("session.update"))["session"]
        assert again["tools"] == [TOOL, MCP]
        replayed = await talk.session.wait_for("conversation.item.create")
        assert replayed["item"]["content"] == [picture]


async def test_a_session_that_the_upstream_refuses_ends_the_call_with_its_words(
    app: DeveloperApp, first: Upstream
) -> None:
    first.plan.append("late")
    async with ringing(app) as (call, _, call_id):
        accepting = asyncio.create_task(
            app.accept(call_id, **SESSION, extra_body={"tools_of_tomorrow": [MCP]})
        )
        session = await first.opened()
        session.updates = False
        await session.created()
        update = await session.wait_for("session.update")
        assert update["session"]["tools_of_tomorrow"] == [MCP]
        fault = {
            "type": "invalid_request_error",
            "code": "unknown_parameter",
            "message": "Unknown parameter: 'session.tools_of_tomorrow'.",
            "param": "session.tools_of_tomorrow",
        }
        await session.send("error", error=fault | {"event_id": update["event_id"]})
        await asyncio.gather(accepting, return_exceptions=True)
        await call.refused(503)
        end = (await app.node.describe(app.seat, call_id))["termination"]
        assert (end["reason"], end["result"], end["sip_status"]) == ("failed", "upstream_error", 503)
        assert fault["message"] in end["cause"]
        assert "unknown_parameter" in end["cause"]
        said = json.dumps(await app.node.timeline(app.seat, call_id))
        assert "first: it refused the session: Unknown parameter: 'session.tools_of_tomorrow'." in said


# Sound.


async def test_the_callers_bytes_go_up_untouched(talk: Talk) -> None:
    spoken = [random.Random(number).randbytes(160) for number in range(25)]
    started = time.monotonic()
    for number, frame in enumerate(spoken):
        await asyncio.sleep(max(0.0, started + number * 0.02 - time.monotonic()))
        talk.rtp.send_raw(talk.rtp.packet(frame), talk.remote)
    await talk.session.until(lambda: spoken[-1] in talk.session.heard, "last frame")
    places = [place for frame in spoken if (place := talk.session.heard.find(frame)) >= 0]
    assert len(places) >= 22, "a few may be late on a busy machine"
    assert places == sorted(places)


async def test_what_came_in_disorder_goes_up_in_order_and_a_loss_is_made_up_for(talk: Talk) -> None:
    spoken = [random.Random(number).randbytes(160) for number in range(25)]
    packets = [talk.rtp.packet(frame) for frame in spoken]
    packets[6], packets[7] = packets[7], packets[6]
    del packets[15]
    started = time.monotonic()
    for number, packet in enumerate(packets):
        await asyncio.sleep(max(0.0, started + number * 0.02 - time.monotonic()))
        talk.rtp.send_raw(packet, talk.remote)
    await talk.session.until(lambda: spoken[-1] in talk.session.heard, "last frame")
    heard = talk.session.heard
    places = [place for frame in spoken if (place := heard.find(frame)) >= 0]
    # The frame after the one that is lost is mixed with what was made up.
    assert len(places) >= 20, "a few may be late on a busy machine"
    assert places == sorted(places)
    assert heard.find(spoken[17]) - heard.find(spoken[14]) >= 3 * 160


@pytest.mark.parametrize(("piece", "gap_s"), [(1000, 0.0), (333, 0.005)])
async def test_the_upstreams_bytes_are_played_untouched(talk: Talk, piece: int, gap_s: float) -> None:
    """In a burst and in a trickle whose pieces are no whole frames, then a byte at a time."""
    audio, byte_by_byte = random.Random(1).randbytes(8000), random.Random(2).randbytes(750)
    item_id = await talk.session.begin()
    # Half a second ahead: the trickle never runs dry, however busy the machine is.
    await talk.session.say(item_id, audio[:4001], piece=4001)
    await talk.session.say(item_id, audio[4001:], piece=piece, gap_s=gap_s)
    await talk.session.say(item_id, byte_by_byte, piece=1)
    done = await talk.session.finish(item_id)
    await talk.hears(lambda heard: audio + byte_by_byte in heard, "the upstream's bytes")
    response_id = done["response"]["id"]
    stopped = await talk.sideband.wait_for("output_audio_buffer.stopped")

    assert stopped["response_id"] == response_id
    types = talk.sideband.types
    assert talk.sideband.of_type("output_audio_buffer.started")[0]["response_id"] == response_id
    assert types.index("response.content_part.added") < types.index("output_audio_buffer.started")
    assert types.index("response.done") < types.index("output_audio_buffer.stopped")
    last = next(at for at, payload in reversed(talk.audio) if payload[:80] in byte_by_byte)
    assert talk.sideband.when(stopped) >= last - 0.03


@pytest.mark.parametrize("piece", [4801, 7])
async def test_24_khz_for_an_upstream_that_takes_no_g711(
    app: DeveloperApp, first: Upstream, piece: int
) -> None:
    """In pieces that end in the middle of a sample."""
    async with talking(app, first, model="linear") as talk:
        update = (await talk.session.wait_for("session.update"))["session"]
        assert update["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
        assert update["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}
        before = len(talk.session.heard)
        await talk.rtp.speak(talk.remote, 200, loud=True)
        await talk.session.until(
            lambda: len(talk.session.heard) - before >= 0.18 * 48_000, "180 ms at 24 kHz"
        )
        assert max(np.abs(np.frombuffer(talk.session.heard[before:], "<i2").astype(int))) > 3000
        item_id = await talk.session.begin()
        hum = np.sin(np.arange(7_200) * 2 * np.pi * 440 / 24_000) * 8_000
        await talk.session.say(item_id, hum.astype("<i2").tobytes(), piece=piece)
        await talk.session.finish(item_id)
        await talk.sideband.wait_for("output_audio_buffer.stopped")
        loud_ms = talk.rtp.loud() * 20
        assert loud_ms == pytest.approx(300, abs=40)


async def test_the_sideband_gets_audio_only_if_it_asked(app: DeveloperApp, first: Upstream) -> None:
    async with talking(app, first, events="audio") as talk:
        item_id = await talk.session.begin()
        await talk.session.say(item_id, LOUD * 5)
        await talk.session.finish(item_id)
        delta = await talk.sideband.wait_for("response.output_audio.delta")
    assert delta in talk.session.sent


# Events.


async def test_events_come_down_with_their_ids(talk: Talk) -> None:
    item_id = await talk.session.begin()
    await talk.session.say(item_id, LOUD * 5)
    await talk.session.finish(item_id, "Good morning.")
    await talk.session.send("rate_limits.updated", rate_limits=[])
    await talk.sideband.wait_for("rate_limits.updated")
    down = [event for event in talk.sideband.events if event["type"] != "output_audio_buffer.started"]
    up = [
        event
        for event in talk.session.sent
        if not event["type"].startswith("session.") and event["type"] != "response.output_audio.delta"
    ]
    assert [event for event in down if not event["type"].startswith("session.")] == up


async def test_a_tool_is_called_and_its_output_goes_up(talk: Talk) -> None:
    item = await talk.session.call_tool("look_up_opening_hours", '{"day":"monday"}')
    done = await talk.sideband.wait_for("response.output_item.done")
    assert done["item"] == item
    output = {"type": "function_call_output", "call_id": item["call_id"], "output": '{"opens":"nine"}'}
    connection = talk.sideband.connection
    await connection.conversation.item.create(item=output, event_id="tool_1")
    await connection.response.create(event_id="tool_2")
    created = await talk.session.wait_for("conversation.item.create")
    asked = await talk.session.wait_for("response.create")
    assert created == {"type": "conversation.item.create", "event_id": "tool_1", "item": output}
    assert asked == {"type": "response.create", "event_id": "tool_2"}
    assert talk.session.received.index(created) < talk.session.received.index(asked)
    added = await talk.sideband.wait_for(
        "conversation.item.added", lambda event: event["item"]["type"] == "function_call_output"
    )
    assert added["item"]["output"] == output["output"]


async def test_an_error_that_answers_the_app_comes_with_the_apps_event_id(talk: Talk) -> None:
    """Rows E11 and E12: without it the Agents SDK waits for ever."""
    await talk.sideband.connection.response.create(event_id="agents_py_response_create_1")
    asked = await talk.session.wait_for("response.create")
    await talk.session.error(
        "Conversation already has an active response in progress: resp_1.",
        "conversation_already_has_active_response",
        event_id=asked["event_id"],
    )
    event = await talk.sideband.wait_for("error")
    assert event["error"]["event_id"] == "agents_py_response_create_1"
    assert event["error"]["code"] == "conversation_already_has_active_response"
    assert talk.call.alive


async def test_an_upstream_that_says_its_key_says_it_to_us_alone(talk: Talk) -> None:
    """The node's log, the timelines and the events of all tests are searched for keys; this gives them one to find."""
    await talk.session.error(f"The key {KEYS['first']} is used up.", "insufficient_quota")
    event = await talk.sideband.wait_for("error")
    assert event["error"]["code"] == "insufficient_quota"


async def test_keys_that_the_caller_presses_are_told_by_us(talk: Talk) -> None:
    talk.rtp.event(talk.remote, "5", DIGITS, [1, 2, 3, -4, -4, -4])
    event = await talk.sideband.wait_for("input_audio_buffer.dtmf_event_received")
    assert event["event"] == "5"
    await asyncio.sleep(0.05)
    assert len(talk.sideband.of_type("input_audio_buffer.dtmf_event_received")) == 1


async def test_sound_and_ends_out_of_order_hurt_nobody(talk: Talk) -> None:
    """A delta of a response that has not begun, one of a response that is done, one end twice."""
    url = talk.app.node.base_url.replace("http:", "ws:") + f"/realtime?call_id={talk.call_id}"
    headers = {"Authorization": f"Bearer {talk.app.seat.api_key}"}
    place = {"item_id": "item_x", "response_id": "resp_x", "output_index": 0, "content_index": 0}
    sound = [bytes([number]) * 160 for number in (0x11, 0x12)]
    delta = [base64.b64encode(one).decode() for one in sound]
    await talk.sideband.connection.close()
    async with connect(url, additional_headers=headers) as loose:
        await talk.session.send("response.output_audio.delta", **place, delta=delta[0])
        await talk.session.send("response.output_audio_transcript.done", **place, transcript="Early.")
        await talk.session.send("response.created", response={"id": "resp_x", "output": []})
        for _ in range(2):
            await talk.session.send(
                "response.done", response={"id": "resp_x", "status": "completed", "output": []}
            )
        await talk.session.send("conversation.item.done", item={"id": "item_x", "type": "message"})
        await talk.session.send("response.output_audio.delta", **place, delta=delta[1])
        await talk.hears(lambda heard: all(one in heard for one in sound), "both")
        async with asyncio.timeout(15):
            while json.loads(await loose.recv())["type"] != "output_audio_buffer.stopped":
                pass
    item_id = await talk.session.begin()
    await talk.session.say(item_id, LOUD * 10)
    await talk.session.finish(item_id)
    await talk.hears(lambda heard: LOUD * 10 in heard, "a response after that")
    talk.call.hang_up()
    await talk.call.ended()


async def test_what_a_call_costs_is_summed_and_limits_are_passed_on(talk: Talk) -> None:
    """Rows O13, O19."""
    limits = [{"name": "tokens", "limit": 20_000, "remaining": 19_800, "reset_seconds": 0.6}]
    for number in range(3):
        item_id = await talk.session.begin()
        await talk.session.say(item_id, LOUD)
        done = await talk.session.finish(item_id)
        await talk.session.send("rate_limits.updated", rate_limits=limits)
        await talk.sideband.wait_for(
            "response.done", lambda event, done=done: event["response"]["id"] == done["response"]["id"]
        )
        usage = (await talk.app.node.describe(talk.app.seat, talk.call_id))["usage"]
        assert usage == {name: value * (number + 1) for name, value in done["response"]["usage"].items()}
    assert (await talk.sideband.wait_for("rate_limits.updated"))["rate_limits"] == limits
    talk.call.hang_up()
    await talk.sideband.wait_closed()
    assert (await talk.app.node.describe(talk.app.seat, talk.call_id))["usage"] == usage
    sums = [
        (entry["title"], entry["usage"])
        for entry in await talk.app.node.timeline(talk.app.seat, talk.call_id)
        if entry["kind"] == "usage"
    ]
    assert sums == [("30 tokens in, 60 out", usage)]


async def test_what_we_do_not_know_is_relayed_and_nonsense_hurts_nobody(talk: Talk) -> None:
    session = talk.session
    url = talk.app.node.base_url.replace("http:", "ws:") + f"/realtime?call_id={talk.call_id}"
    headers = {"Authorization": f"Bearer {talk.app.seat.api_key}"}
    place = {"item_id": "item_none", "response_id": "resp_none", "output_index": 0, "content_index": 0}
    # The strict sideband of the other tests would not stand for what comes now.
    await talk.sideband.connection.close()
    async with connect(url, additional_headers=headers) as loose:
        await session.send_raw("{not json")
        await session.send_raw(b"\x00\x01")
        await session.send_raw("[]")
        await session.send_raw('{"event_id": "event_without_a_type"}')
        await session.send("response.output_audio.delta", **place, delta="!")
        await session.send("response.output_audio.done", **place)
        await session.send("error", error="a word")
        await session.send("session.updated", session=["a list"])
        await session.send("response.created", response=None)
        await session.send("response.done", response={"id": 7, "usage": {"total_tokens": "many"}})
        await session.send("conversation.item.added", item={"id": "item_odd", "content": "a word"})
        await session.send("response.content_part.added", item_id=["x"], content_index={}, part=None)
        await session.send(
            "conversation.item.truncated", item_id="item_none", content_index=0, audio_end_ms=5
        )
        unknown = await session.send("response.thought.delta", thought={"deep": [1, None, "ü"]})
        async with asyncio.timeout(15):
            while (event := json.loads(await loose.recv()))["type"] != unknown["type"]:
                pass
        assert event == unknown
    item_id = await session.begin()
    await session.say(item_id, LOUD * 10)
    await session.finish(item_id)
    await talk.hears(lambda heard: LOUD * 10 in heard, "a response after nonsense")
    assert talk.call.alive
    talk.call.hang_up()
    await talk.call.ended()


# Barge-in.


@pytest.mark.parametrize("generating", [False, True])
async def test_the_caller_who_speaks_stops_the_sound_and_the_upstream_is_told(
    talk: Talk, generating: bool
) -> None:
    """Row O09; `audio_end_ms` is what was really played."""
    item_id = await talk.session.begin()
    await talk.session.say(item_id, LOUD * 200)
    done = None if generating else await talk.session.finish(item_id)
    await talk.hears(lambda heard: heard.count(LOUD) >= 10, "the beginning")
    interrupted_at = time.monotonic()
    await talk.session.interrupt(item_id if generating else None)
    cleared = await talk.sideband.wait_for("output_audio_buffer.cleared")
    truncate = await talk.session.wait_for("conversation.item.truncate")
    await talk.sideband.wait_for("conversation.item.truncated")
    await asyncio.sleep(0.15)

    played = [at for at, payload in talk.audio if payload == LOUD]
    assert played[-1] - interrupted_at < 1.0, "of four seconds"
    assert (truncate["item_id"], truncate["content_index"]) == (item_id, 0)
    assert truncate["audio_end_ms"] == pytest.approx(len(played) * 20, abs=40)
    if done is not None:
        assert cleared["response_id"] == done["response"]["id"]
    assert "output_audio_buffer.stopped" not in talk.sideband.types
    assert "error" not in talk.sideband.types
    # Clients that were given audio truncate too.
    await talk.sideband.connection.conversation.item.truncate(
        item_id=item_id, content_index=0, audio_end_ms=truncate["audio_end_ms"]
    )
    await talk.sideband.connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
    await talk.sideband.wait_for(
        "session.updated", lambda event: event["session"]["instructions"] == "Be brief."
    )
    assert "error" not in talk.sideband.types


async def test_the_sound_goes_on_when_nobody_may_interrupt(app: DeveloperApp, first: Upstream) -> None:
    """Row O10."""
    patient = {"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}}
    async with talking(app, first, audio=patient) as talk:
        item_id = await talk.session.begin()
        await talk.session.say(item_id, LOUD * 15)
        await talk.session.finish(item_id)
        await talk.hears(lambda heard: heard.count(LOUD) >= 5, "the beginning")
        await talk.session.interrupt()
        await talk.sideband.wait_for("output_audio_buffer.stopped")
        assert [payload for _, payload in talk.audio].count(LOUD) == 15
        assert not talk.session.of_type("conversation.item.truncate")


async def test_the_app_stops_the_sound(talk: Talk) -> None:
    """Row E17: ours to do, so it does not go up; what was not heard is cut off there."""
    item_id = await talk.session.begin()
    await talk.session.say(item_id, LOUD * 100)
    await talk.session.finish(item_id)
    await talk.hears(lambda heard: heard.count(LOUD) >= 5, "the beginning")
    await talk.sideband.connection.output_audio_buffer.clear()
    await talk.sideband.wait_for("output_audio_buffer.cleared")
    await talk.session.wait_for("conversation.item.truncate")
    await asyncio.sleep(0.1)
    assert [payload for _, payload in talk.audio].count(LOUD) < 50
    assert not talk.session.of_type("output_audio_buffer.clear")


async def test_who_interrupts_minutes_that_came_at_once_is_obeyed_at_once(talk: Talk) -> None:
    item_id = await talk.session.begin()
    await talk.session.say(item_id, LOUD * 9_000, piece=480_000)
    await talk.hears(lambda heard: heard.count(LOUD) >= 5, "the beginning")
    interrupted_at = time.monotonic()
    await talk.session.interrupt(item_id)
    await talk.sideband.wait_for("output_audio_buffer.cleared")
    await talk.session.wait_for("conversation.item.truncate")
    await asyncio.sleep(0.15)
    assert [at for at, payload in talk.audio if payload == LOUD][-1] - interrupted_at < 1.0


async def test_an_upstream_that_speaks_for_ever_is_read_no_further_and_can_be_stopped(talk: Talk) -> None:
    item_id = await talk.session.begin()
    # Eleven minutes; what more it has to say waits in its own socket. The kernel may hold 40 MB of that.
    await talk.session.say(item_id, LOUD * 33_000, piece=1_600_000)
    await talk.notes("read no further")
    saying = asyncio.create_task(talk.session.say(item_id, LOUD * 300_000, piece=1_600_000))
    await asyncio.sleep(0.2)
    assert not saying.done()
    assert talk.call.alive
    await talk.sideband.connection.output_audio_buffer.clear()
    await talk.sideband.wait_for("output_audio_buffer.cleared")
    async with asyncio.timeout(60):  # it is 60 MB of JSON for a process that does more besides
        await saying
    await talk.session.wait_for("response.cancel")
    await talk.session.finish(item_id, status="cancelled")
    item_id = await talk.session.begin()
    other = bytes([0x13, 0x93] * 80)
    await talk.session.say(item_id, other * 10)
    await talk.session.finish(item_id)
    await talk.hears(lambda heard: other * 10 in heard, "the next response")


# Failover.


@pytest.mark.parametrize("trouble", [401, 429, 503])
async def test_the_next_of_the_list_is_tried_when_one_refuses(
    app: DeveloperApp, first: Upstream, second: Upstream, trouble: int
) -> None:
    first.plan.append(trouble)
    async with talking(app, second, model="listed") as talk:
        assert [one.status for one in first.handshakes] == [trouble]
        assert talk.session.handshake.query == {"model": "gpt-other"}
        update = await talk.session.wait_for("session.update")
        assert update["session"]["instructions"] == SESSION["instructions"]
        assert talk.sideband.events[0]["session"]["id"] == talk.session.id
        assert "first" in (await talk.notes(str(trouble)))["title"]


async def test_the_next_of_the_list_is_tried_when_nobody_is_there(
    app: DeveloperApp, second: Upstream
) -> None:
    async with talking(app, second, model="closed-first") as talk:
        assert talk.sideband.events[0]["session"]["id"] == talk.session.id
        await talk.notes("closed")


async def test_the_next_of_the_list_is_tried_after_a_silence(
    app: DeveloperApp, first: Upstream, second: Upstream
) -> None:
    """One call meets an upstream that does not answer the handshake, the other one that says nothing after it."""
    first.plan += ["hang", "silent"]

    async def answer(call: PhoneCall, call_id: str) -> str:
        await app.accept(call_id, **(SESSION | {"model": "impatient"}))
        await call.answered()
        async with Sideband(app.client, call_id) as sideband:
            created = await sideband.wait_for("session.created")
            session_id: str = created["session"]["id"]
            return session_id

    async with ringing(app) as (one, _, one_id), ringing(app) as (two, _, two_id):
        session_ids = await asyncio.gather(answer(one, one_id), answer(two, two_id))
    assert sorted(session_ids) == sorted(session.id for session in second.sessions)
    waited = [second.handshakes[at].at - first.handshakes[at].at for at in (0, 1)]
    assert all(0.6 < s < 5 for s in waited)


async def test_the_next_of_the_list_is_tried_when_one_hangs_after_its_first_event(
    app: DeveloperApp, first: Upstream, second: Upstream
) -> None:
    """It says `session.created`, and nothing to `session.update`."""
    first.plan.append("late")
    async with ringing(app) as (call, _, call_id):
        accepting = asyncio.create_task(app.accept(call_id, **(SESSION | {"model": "impatient"})))
        hanging = await first.opened()
        hanging.updates = False
        await hanging.created()
        await accepting
        await call.answered()
        taken = await second.opened()
        async with Sideband(app.client, call_id) as sideband:
            assert (await sideband.wait_for("session.created"))["session"]["id"] == taken.id


# A connection that is lost while they talk.


async def test_the_caller_hears_a_sentence_while_it_is_opened_again(
    app: DeveloperApp, first: Upstream
) -> None:
    sentence = load_hold_sentence("")
    assert sentence is not None
    said = sentence.sounds["audio/pcmu"]
    async with talking(app, first) as talk:
        item_id = await talk.session.begin()
        await talk.session.say(item_id, LOUD * 10)
        await talk.session.finish(item_id)
        await talk.sideband.wait_for("output_audio_buffer.stopped")
        first.plan.append("late")
        lost_at = time.monotonic()
        await talk.session.close(1006)
        again = await first.opened()
        await talk.hears(lambda heard: said[:480] in heard, "a sentence")
        assert time.monotonic() - lost_at >= 0.4
        await talk.notes("the caller hears: one moment, please")
        await again.created()
        talk.session = again
        await talk.session.wait_for("session.update")
        await talk.sideband.wait_for("session.updated")

        item_id = await again.begin()
        await again.say(item_id, LOUD * 200)
        await talk.hears(lambda heard: said in heard, "the sentence to its end")
        await talk.hears(lambda heard: heard.partition(said)[2].count(LOUD) >= 10, "the answer")
        await again.interrupt(item_id)
        truncate = await again.wait_for("conversation.item.truncate")
        await asyncio.sleep(0.3)
        after = b"".join(payload for _, payload in talk.audio).partition(said)[2]
        assert truncate["audio_end_ms"] == pytest.approx(after.count(LOUD) * 20, abs=40)
        assert talk.sideband.types.count("output_audio_buffer.started") == 2
        assert "response.create" not in [event["type"] for event in again.received]


async def test_a_turn_that_the_loss_took_is_answered_without_being_said_again(
    app: DeveloperApp, first: Upstream
) -> None:
    async with talking(app, first) as talk:
        words = [random.Random(number).randbytes(160) for number in range(15)]
        for number, frame in enumerate(words):
            talk.rtp.send_raw(talk.rtp.packet(frame), talk.remote)
            if number == 5:
                await talk.session.send(
                    "input_audio_buffer.speech_started", item_id="item_turn", audio_start_ms=0
                )
            await asyncio.sleep(0.02)
        await talk.session.until(lambda: words[-1] in talk.session.heard, "last frame")
        await talk.session.send("input_audio_buffer.speech_stopped", item_id="item_turn", audio_end_ms=300)
        await talk.session.send("input_audio_buffer.committed", item_id="item_turn", previous_item_id=None)
        await talk.sideband.wait_for("input_audio_buffer.committed")
        await talk.session.close(1001)

        talk.session = again = await first.opened()
        created = await again.wait_for("conversation.item.create")
        await again.wait_for("response.create")
        assert created["item"]["id"] == "item_turn"
        (part,) = created["item"]["content"]
        assert part["type"] == "input_audio"
        assert b"".join(words[-5:]) in base64.b64decode(part["audio"])
        types = [event["type"] for event in again.received]
        assert types.index("conversation.item.create") < types.index("response.create")
        assert types.count("response.create") == 1
        await talk.notes("is asked for the answer")


async def test_what_is_said_while_nobody_listens_is_heard_by_the_next(
    app: DeveloperApp, first: Upstream
) -> None:
    async with talking(app, first) as talk:
        await talk.rtp.speak(talk.remote, 60, loud=True)
        first.plan.append("late")
        await talk.session.close(1006)
        talk.session = again = await first.opened()
        words = [random.Random(number).randbytes(160) for number in range(10)]
        for frame in words:
            talk.rtp.send_raw(talk.rtp.packet(frame), talk.remote)
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        await again.created()
        await again.until(lambda: b"".join(words[2:8]) in again.heard, "words from meanwhile")


async def test_a_session_that_is_about_to_end_is_replaced_before_it_is_let_go(
    first: Upstream, addresses: Any
) -> None:
    """The engine alone: the moment is the relay's choice."""
    url = f"ws://127.0.0.1:{addresses['first'].getsockname()[1]}/v1/realtime"
    target = Target("first", url, KEYS["first"])
    engine = UpstreamEngine([target], tls={"first": None})
    came: list[Any] = []
    try:
        await engine.start(
            EngineStart("sess", "audio/pcmu", "gpt-realtime", {"type": "realtime"}), came.append
        )
        old = await first.opened()
        first.plan.append("late")
        engine.handle(ReopenUpstream({"instructions": "Go on."}, []))
        new = await first.opened()
        engine.hear(LOUD)
        await old.until(lambda: LOUD in old.heard, "sound, as long as it stands")
        await new.created()
        assert (await old.gone())[0] == 1000
        await new.until(lambda: LOUD in new.heard, "the same sound")
        assert (await new.wait_for("session.update"))["session"]["instructions"] == "Go on."
        assert [type(event) for event in came] == [UpstreamOpened, UpstreamOpened]

        first.plan.append(503)
        engine.handle(ReopenUpstream({}, []))
        async with asyncio.timeout(15):
            while not (isinstance(came[-1], UpstreamNote) and "goes on" in came[-1].title):
                await asyncio.sleep(0.01)
        engine.hear(LOUD * 2)
        await new.until(lambda: LOUD * 2 in new.heard, "sound after a refusal")
        assert EngineFailed not in [type(event) for event in came]
    finally:
        await engine.close()


@pytest.mark.parametrize("how", ["cut", "cap"])
async def test_a_lost_upstream_is_opened_again_with_the_conversation_so_far(
    app: DeveloperApp, first: Upstream, how: str
) -> None:
    async with talking(app, first) as talk:
        item_id = await talk.session.begin()
        await talk.session.say(item_id, LOUD * 5)
        await talk.session.finish(item_id, "Good morning, the bakery.")
        called = await talk.session.call_tool("look_up_opening_hours", '{"day":"monday"}')
        output = {"type": "function_call_output", "call_id": called["call_id"], "output": '{"opens":"nine"}'}
        await talk.sideband.connection.conversation.item.create(item=output)
        await talk.sideband.wait_for(
            "conversation.item.done", lambda event: event["item"]["type"] == "function_call_output"
        )
        await talk.hears(lambda heard: heard.count(LOUD) == 5, "the greeting")
        await (talk.session.close(1006) if how == "cut" else talk.session.expire())

        again = await talk.upstream.opened()
        update = (await again.wait_for("session.update"))["session"]
        assert update["instructions"] == SESSION["instructions"]
        assert update["tools"] == [TOOL]
        await again.wait_for(
            "conversation.item.create", lambda event: event["item"]["type"] == "function_call_output"
        )
        items = [event["item"] for event in again.of_type("conversation.item.create")]
        assert [item["type"] for item in items] == ["message", "function_call", "function_call_output"]
        assert "Good morning, the bakery." in json.dumps(items[0])
        assert (items[1]["call_id"], items[1]["arguments"]) == (called["call_id"], '{"day":"monday"}')
        assert items[2]["output"] == output["output"]

        talk.session = again
        since = len(talk.audio)
        item_id = await again.begin()
        await again.say(item_id, LOUD * 10)
        await again.finish(item_id, "Here I am again.")
        await talk.sideband.wait_for(
            "response.output_audio_transcript.done",
            lambda event: event["transcript"] == "Here I am again.",
        )
        await talk.hears(
            lambda heard: [payload for _, payload in talk.audio[since:]].count(LOUD) == 10, "the response"
        )
        assert talk.sideband.types.count("session.created") == 1


async def test_a_response_that_the_loss_cut_off_is_done_once(app: DeveloperApp, first: Upstream) -> None:
    """Row O12."""
    async with talking(app, first) as talk:
        item_id = await talk.session.begin()
        await talk.session.say(item_id, LOUD * 5)
        await talk.session.close(1006)
        done = await talk.sideband.wait_for("response.done")
        assert done["response"]["status"] == "failed"
        talk.session = await talk.upstream.opened()
        await talk.sideband.connection.response.create(event_id="after")
        await talk.session.wait_for("response.create")


async def test_a_call_is_handed_on_when_its_upstream_does_not_come_back(
    app: DeveloperApp, first: Upstream, second: Upstream
) -> None:
    async with talking(app, first, model="listed") as talk:
        first.plan.append(503)
        await talk.session.close(1006)
        talk.session = await second.opened()
        update = await talk.session.wait_for("session.update")
        assert update["session"]["instructions"] == SESSION["instructions"]
        await talk.notes("503")


async def test_a_call_whose_upstreams_are_all_gone_ends_as_failed(app: DeveloperApp, first: Upstream) -> None:
    async with talking(app, first) as talk:
        first.plan += [503] * 5
        await talk.session.close(1006)
        await talk.call.ended()
        assert (await talk.sideband.wait_closed())[0] == 1000
        while (ended := await talk.app.next("realtime.call.ended")).call_id != talk.call_id:
            pass
        end = json.loads(ended.body)["data"]
        assert (end["reason"], end["result"]) == ("failed", "upstream_error")
        assert "first: HTTP 503" in end["cause"]
        await talk.notes("503")
