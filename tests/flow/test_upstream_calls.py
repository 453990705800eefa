"""Real calls whose model is an upstream Realtime API, through all that such an API may do."""

from __future__ import annotations

import asyncio
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
    assert not [key for key in KEYS.values() if key in said]


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

    async def hears(self, holds: Callable[[bytes], Any], what: str, timeout: float = 5.0) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not holds(b"".join(payload for _, payload in self.audio)):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"the phone did not hear {what}; {len(self.audio)} packets came") from None

    async def notes(self, word: str, timeout: float = 3.0) -> dict[str, Any]:
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
        assert not [key for key in KEYS.values() if key in said]


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
        event = await asyncio.wait_for(attaching, 3)
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
    """In a burst and in a trickle whose pieces are no whole frames."""
    audio = random.Random(1).randbytes(4000)
    item_id = await talk.session.begin()
    await talk.session.say(item_id, audio, piece=piece, gap_s=gap_s)
    done = await talk.session.finish(item_id)
    await talk.hears(lambda heard: audio in heard, "the upstream's bytes")
    response_id = done["response"]["id"]
    stopped = await talk.sideband.wait_for("output_audio_buffer.stopped")

    assert stopped["response_id"] == response_id
    types = talk.sideband.types
    assert talk.sideband.of_type("output_audio_buffer.started")[0]["response_id"] == response_id
    assert types.index("response.content_part.added") < types.index("output_audio_buffer.started")
    assert types.index("response.done") < types.index("output_audio_buffer.stopped")
    last = next(at for at, payload in reversed(talk.audio) if payload[:80] in audio)
    assert talk.sideband.when(stopped) >= last - 0.03


async def test_24_khz_for_an_upstream_that_takes_no_g711(app: DeveloperApp, first: Upstream) -> None:
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
        await talk.session.say(item_id, hum.astype("<i2").tobytes(), piece=4801)
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
        async with asyncio.timeout(3):
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
    assert played[-1] - interrupted_at < 0.1
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
    assert waited == pytest.approx([0.7, 0.7], abs=0.3)


# A connection that is lost while they talk.


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
        assert "failed" in ended.body.decode()
        await talk.notes("503")
