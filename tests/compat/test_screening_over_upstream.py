"""`examples/screening/app.py` as it stands, on a node whose voice is an upstream Realtime API."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from testbed import Node, Phone, PhoneCall, Seat
from testbed.screening import TARGET, messages_of, screening_app
from testbed.upstream import Upstream, UpstreamSession
from testbed.upstream_model import UpstreamModel, sound_ms
from testbed.waiting import PATIENCE_S

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.alone]

KEY = "sk-upstream-screening-1Xy"
GREETING = "Good morning, this is the office. Who is calling, please?"
QUESTION = "What is it about?"
STILL_THERE = "I could not reach them."
HEARD = ("This is Anna Miller.", "It is about our meeting.")


def decide(decision: str, says: str) -> dict[str, Any]:
    arguments = json.dumps({"decision": decision, "caller_name": "Anna Miller", "reason": "our meeting"})
    return {"says": says, "calls": [{"name": "make_screening_decision", "arguments": arguments}]}


ALLOW = [decide("ALLOW", "One moment, I put you through.")]
ALLOW_SILENTLY = [decide("ALLOW", ""), {"says": "One moment, I put you through."}]
REJECT = [decide("REJECT", "No, thank you. Goodbye.")]
VOICEMAIL = [decide("VOICEMAIL", "Please leave a message now.")]


def script(last: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the model hears and says until it has decided."""
    return {
        "greeting": GREETING,
        "turns": [
            {"hears": HEARD[0], "replies": [{"says": QUESTION}]},
            {"hears": HEARD[1], "replies": last},
            {"hears": "Are you still there?", "replies": [{"says": STILL_THERE}]},
        ],
    }


@pytest.fixture(scope="module")
def address() -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture(scope="module")
def relaying_node(tmp_path_factory: pytest.TempPathFactory, address: socket.socket) -> Iterator[Node]:
    engine = f"""
        [upstreams.voice]
        url = "ws://127.0.0.1:{address.getsockname()[1]}/v1/realtime"
        api_key_env = "TEST_KEY_VOICE"
        [models]
        "*" = "voice"
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY_VOICE", KEY)
        with Node(tmp_path_factory.mktemp("relaying-node"), engine=engine, seats=1) as running:
            yield running


@pytest.fixture(scope="module")
def seat(relaying_node: Node) -> Iterator[Seat]:
    with screening_app(relaying_node) as seat:
        yield seat


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(address: socket.socket) -> AsyncIterator[Upstream]:
    async with Upstream(address, key=KEY) as upstream:
        yield upstream


@dataclass
class Screened:
    """A call that the example has accepted."""

    node: Node
    seat: Seat
    call: PhoneCall
    session: UpstreamSession
    model: UpstreamModel

    async def speaks(self, ms: int = 300) -> float:
        """Speak as the caller; return when that was over."""
        ends = self.call.speak(ms)
        await asyncio.sleep(max(0.0, ends - asyncio.get_running_loop().time()))
        return ends

    async def hears_to_the_end(self, text: str, since: float = 0.0) -> None:
        """Wait until a sentence was heard whole, and then silence."""
        await self.call.hears_sound(
            int(sound_ms(text) * 0.9), timeout=sound_ms(text) / 1000 + PATIENCE_S, since=since
        )
        await self.call.hears_silence(200)

    async def timeline(self) -> list[dict[str, Any]]:
        call = await self.described()
        return await self.node.timeline(self.seat, call["id"])

    async def described(self) -> dict[str, Any]:
        calls = (await self.node.get(self.seat, "/realtime/calls"))["data"]
        return await self.node.describe(self.seat, calls[0]["id"])

    async def over(self) -> dict[str, Any]:
        """Wait for the end; return what the API says of the call."""
        await self.call.ended()
        async with asyncio.timeout(PATIENCE_S):
            while not (call := await self.described()).get("termination"):
                await asyncio.sleep(0.02)
        return call


@asynccontextmanager
async def screened(
    node: Node, seat: Seat, upstream: Upstream, last: list[dict[str, Any]]
) -> AsyncIterator[Screened]:
    async with Phone(node, "tls") as phone:
        call = await phone.dial(seat.project)
        await call.answered()
        session = await upstream.opened()
        async with UpstreamModel(session, script(last)) as model:
            yield Screened(node, seat, call, session, model)
            assert (await session.gone())[0] == 1000


def titles(timeline: list[dict[str, Any]], kind: str) -> list[str]:
    return [entry["title"] for entry in timeline if entry["kind"] == kind]


def played_ms(timeline: list[dict[str, Any]]) -> int:
    """Return how much of the agent's sound was sent in all."""
    (total,) = [int(entry["played_ms"]) for entry in timeline if "played_ms" in entry]
    return total


@pytest.mark.parametrize("last", [ALLOW, ALLOW_SILENTLY], ids=["in the same breath", "without a word"])
async def test_a_caller_is_asked_and_put_through(
    relaying_node: Node, seat: Seat, upstream: Upstream, last: list[dict[str, Any]]
) -> None:
    async with screened(relaying_node, seat, upstream, last) as screen:
        await screen.hears_to_the_end(GREETING)
        spoke = await screen.speaks()
        await screen.hears_to_the_end(QUESTION, spoke)
        spoke = await screen.speaks()
        ended = await screen.over()

    refer, bye = *screen.call.received("REFER"), *screen.call.received("BYE")
    assert refer.message.headers.get("Refer-To") == f"<{TARGET}>"
    notified = [wire.name for wire in screen.call.wire if wire.name.endswith("NOTIFY")]
    assert notified.count("200 NOTIFY") == 3
    assert bye.at > refer.at
    # The caller hears the last sentence to its end, and nothing after it.
    sentence = sound_ms(last[-1]["says"])
    assert screen.call.loud_ms(spoke, refer.at) >= sentence * 0.9
    assert screen.call.loud_ms(refer.at) <= 200

    assert ended["termination"]["reason"] == "transferred"
    assert [one["status"] for one in ended["refers"]] == ["completed"]
    timeline = await screen.timeline()
    assert played_ms(timeline) == sound_ms(GREETING) + sound_ms(QUESTION) + sentence
    webhook = next(entry for entry in timeline if entry["kind"] == "webhook" and "attempt" in entry)
    assert webhook["status"] == 200
    assert [(entry["verb"], entry["status"]) for entry in timeline if entry["kind"] == "rest"] == [
        ("accept", 200),
        ("refer", 200),
    ]
    assert titles(timeline, "sideband")[0] == "attached"
    assert titles(timeline, "heard") == list(HEARD)
    assert titles(timeline, "said") == [GREETING, QUESTION, last[-1]["says"]]
    (tool,) = titles(timeline, "tool_call")
    assert tool.startswith('make_screening_decision({"decision": "ALLOW"')
    # What the app did with the decision reached the model.
    output = await screen.session.wait_for("conversation.item.create")
    assert output["item"]["type"] == "function_call_output"
    assert len(screen.session.of_type("response.create")) == len(last)


async def test_a_caller_is_sent_away(relaying_node: Node, seat: Seat, upstream: Upstream) -> None:
    async with screened(relaying_node, seat, upstream, REJECT) as screen:
        await screen.hears_to_the_end(GREETING)
        spoke = await screen.speaks()
        await screen.hears_to_the_end(QUESTION, spoke)
        spoke = await screen.speaks()
        ended = await screen.over()
    (bye,) = screen.call.received("BYE")
    assert screen.call.received("REFER") == []
    assert screen.call.loud_ms(spoke, bye.at) >= sound_ms(REJECT[0]["says"]) * 0.9
    whole = sum(map(sound_ms, (GREETING, QUESTION, REJECT[0]["says"])))
    assert played_ms(await screen.timeline()) == whole
    assert ended["termination"]["reason"] == "hangup"


async def test_a_caller_leaves_a_message(relaying_node: Node, seat: Seat, upstream: Upstream) -> None:
    """The model is told what happens now, and to let the caller think for two seconds."""
    async with screened(relaying_node, seat, upstream, VOICEMAIL) as screen:
        await screen.hears_to_the_end(GREETING)
        spoke = await screen.speaks()
        await screen.hears_to_the_end(QUESTION, spoke)
        spoke = await screen.speaks()
        await screen.hears_to_the_end(VOICEMAIL[0]["says"], spoke)
        update = await screen.session.wait_for(
            "session.update", lambda event: "leaves a message" in event["session"].get("instructions", "")
        )
        assert update["session"]["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 2000
        spoke = await screen.speaks()
        ended = await screen.over()
    (bye,) = screen.call.received("BYE")
    # The phone's jitter buffer holds some of it when the BYE comes.
    assert screen.call.loud_ms(spoke, bye.at) >= sound_ms(STILL_THERE) - 140
    whole = sum(map(sound_ms, (GREETING, QUESTION, VOICEMAIL[0]["says"], STILL_THERE)))
    assert played_ms(await screen.timeline()) == whole
    assert ended["termination"]["reason"] == "hangup"
    kept = json.loads((messages_of(relaying_node) / f"{ended['id']}.json").read_text())
    assert kept["text"]


async def test_a_caller_who_speaks_into_the_greeting_cuts_it_off(
    relaying_node: Node, seat: Seat, upstream: Upstream
) -> None:
    """Row O09, from the caller's mouth to the caller's ear: the model hears it in the sound that went up."""
    async with screened(relaying_node, seat, upstream, ALLOW) as screen:
        await screen.call.hears_sound(200)
        began = asyncio.get_running_loop().time()
        spoke = await screen.speaks(800)
        truncate = await screen.session.wait_for("conversation.item.truncate")
        heard_ms = screen.call.loud_ms(until=spoke)
        assert screen.call.loud_ms(began + 0.4, spoke) == 0
        assert heard_ms < sound_ms(GREETING) - 200
        assert truncate["audio_end_ms"] == pytest.approx(heard_ms, abs=150)
        assert truncate["item_id"] in screen.session.items

        await screen.hears_to_the_end(QUESTION, spoke)
        assert screen.call.loud_ms(spoke) == pytest.approx(sound_ms(QUESTION), abs=100)
        timeline = await screen.timeline()
        (interrupted,) = titles(timeline, "interrupted")
        assert interrupted.startswith(f"heard {truncate['audio_end_ms']} of ")
        await screen.speaks()
        assert (await screen.over())["termination"]["reason"] == "transferred"


async def test_a_transfer_that_fails_leaves_caller_and_model_together(
    relaying_node: Node, seat: Seat, upstream: Upstream
) -> None:
    async with screened(relaying_node, seat, upstream, ALLOW) as screen:
        screen.call.on_refer = (603, ())
        await screen.hears_to_the_end(GREETING)
        spoke = await screen.speaks()
        await screen.hears_to_the_end(QUESTION, spoke)
        spoke = await screen.speaks()
        await screen.hears_to_the_end(ALLOW[0]["says"], spoke)
        async with asyncio.timeout(PATIENCE_S):
            while not [
                refer for refer in (await screen.described())["refers"] if refer["status"] == "failed"
            ]:
                await asyncio.sleep(0.02)
        assert screen.call.alive
        spoke = await screen.speaks()
        await screen.hears_to_the_end(STILL_THERE, spoke)
        screen.call.hang_up()
        assert (await screen.over())["termination"]["reason"] == "remote_hangup"
    timeline = await screen.timeline()
    assert [entry["status"] for entry in timeline if entry["kind"] == "rest"] == [200, 502]
    assert titles(timeline, "said")[-1] == STILL_THERE
