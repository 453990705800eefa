"""Real calls to an agent that a language model speaks for, through all that such a model's endpoint may do."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from offhook.cli.phone.voice import synthesise
from offhook.media import negotiate
from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband
from testbed.language_model import Exchange, LanguageModel, engine_of
from testbed.line import Heard, Line

pytestmark = [pytest.mark.models, pytest.mark.alone]

QUESTION = "When do you open on Monday?"
INTERRUPTION = "Hold on, I have another question."
TOOL = {
    "type": "function",
    "name": "look_up_opening_hours",
    "parameters": {"type": "object", "properties": {"day": {"type": "string"}}},
}
SESSION = {
    "instructions": "Answer the phone for a bakery.",
    "audio": {
        "input": {
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
            "transcription": {"model": "whisper-1"},
        }
    },
    "tools": [TOOL],
}
SILENT = b"\xff" * 160


@pytest.fixture(scope="module")
def address() -> Iterator[socket.socket]:
    """Where the language model will be; the node is told before it is there."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture(scope="module")
def chat_node(tmp_path_factory: pytest.TempPathFactory, address: socket.socket) -> Iterator[Node]:
    engine = engine_of(address, timeout_s=1)
    with Node(tmp_path_factory.mktemp("chat-node"), engine=engine, seats=20) as running:
        yield running


@dataclass
class Talk:
    call: PhoneCall
    line: Line
    sideband: Sideband
    model: LanguageModel

    async def ask(self) -> float:
        """Have the app ask for a response, as it does for a greeting; return when."""
        await self.sideband.connection.response.create()
        return time.monotonic()

    async def done(self) -> dict[str, Any]:
        event = await self.sideband.wait_for("response.done", timeout=30)
        response: dict[str, Any] = event["response"]
        return response

    def sound_since(self, at: float) -> list[Heard]:
        """The packets with anything at all in them, from the first to the last after `at`."""
        return [packet for packet in self.line.heard if packet.at >= at and packet.payload != SILENT]


@pytest.fixture
async def talk(chat_node: Node, address: socket.socket) -> AsyncIterator[Talk]:
    async with (
        LanguageModel(address) as model,
        DeveloperApp(chat_node) as app,
        Phone(chat_node) as phone,
        Line() as line,
    ):
        call = await phone.dial(app.seat.project, media_port=line.port)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id, **SESSION)
        line.connect(negotiate.complete(call.offer, (await call.answered()).body).remote)
        async with Sideband(app.client, call_id) as sideband:
            await sideband.wait_for("session.created")
            yield Talk(call, line, sideband, model)
            call.hang_up()
            await sideband.wait_closed()


async def test_the_first_sentence_is_heard_while_the_rest_is_still_to_come(talk: Talk) -> None:
    rest = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        exchange.start()
        for piece in ("Good ", "morn", "ing. ", "We "):
            exchange.say(piece)
        await rest.wait()
        exchange.say("open at nine.")
        exchange.finish()

    talk.model.behaviours.append(answer)
    spoken = await talk.line.said(talk.line.say(synthesise([QUESTION])[0].samples))
    heard_at = await talk.line.hears_sound(spoken.ended)
    assert heard_at > spoken.ended
    assert "response.done" not in talk.sideband.types
    rest.set()
    response = await talk.done()

    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["transcript"] == "Good morning. We open at nine."
    system, user = talk.model.requests[0]["messages"]
    assert system == {"role": "system", "content": "Answer the phone for a bakery."}
    assert user["role"] == "user"
    assert "monday" in user["content"].lower()


async def test_a_tool_call_in_pieces_reaches_the_app_and_its_result_the_model(talk: Talk) -> None:
    """Rows O07 and O08."""

    async def call(exchange: Exchange) -> None:
        exchange.start()
        exchange.say("Let me see. ")
        exchange.call_tool("", "look_up_opening_hours")
        for piece in ('{"d', 'ay": "mo', "nday", '"}'):
            exchange.call_tool(piece)
            await asyncio.sleep(0.01)
        exchange.finish("tool_calls")

    async def tell(exchange: Exchange) -> None:
        exchange.start()
        exchange.say("At nine.")
        exchange.finish()

    talk.model.behaviours += [call, tell]
    asked_at = await talk.ask()
    await talk.line.hears_sound(asked_at)
    done = await talk.sideband.wait_for(
        "response.output_item.done", lambda event: event["item"]["type"] == "function_call"
    )
    response = await talk.done()

    item = done["item"]
    assert (item["name"], item["status"]) == ("look_up_opening_hours", "completed")
    assert json.loads(item["arguments"]) == {"day": "monday"}
    deltas = talk.sideband.of_type("response.function_call_arguments.delta")
    assert "".join(event["delta"] for event in deltas) == item["arguments"]
    assert len(deltas) > 1
    assert [one["type"] for one in response["output"]] == ["message", "function_call"]
    of_the_call = [
        event["type"]
        for event in talk.sideband.events
        if event.get("item_id", event.get("item", {}).get("id")) == item["id"]
    ]
    assert [kind for kind in of_the_call if not kind.endswith("delta")] == [
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
    ]
    assert talk.model.requests[0]["tools"][0]["function"]["name"] == "look_up_opening_hours"

    connection = talk.sideband.connection
    await connection.conversation.item.create(
        item={"type": "function_call_output", "call_id": item["call_id"], "output": '{"opens": "nine"}'}
    )
    before = len(talk.sideband.events)
    await connection.response.create()
    told = await talk.sideband.wait_for("response.output_audio_transcript.done", after=before)
    assert told["transcript"] == "At nine."
    *_, called, result = talk.model.requests[1]["messages"]
    assert called["tool_calls"][0]["id"] == result["tool_call_id"] == item["call_id"]
    assert result["content"] == '{"opens": "nine"}'


async def refuses(exchange: Exchange) -> None:
    exchange.start("429 Too Many Requests", "application/json", retry_after="30")
    exchange.raw(b'{"error": {"message": "slow down"}}')


async def hangs(exchange: Exchange) -> None:
    await asyncio.sleep(30)


async def hangs_after_the_head(exchange: Exchange) -> None:
    exchange.start()
    await asyncio.sleep(30)


async def talks_nonsense(exchange: Exchange) -> None:
    exchange.start()
    exchange.raw(b"data: {not json at all\n\n")


async def is_no_model(exchange: Exchange) -> None:
    exchange.start(content_type="text/html")
    exchange.raw(b"<html>It works!</html>")


async def breaks_off(exchange: Exchange) -> None:
    exchange.start()
    exchange.say("I was just about to ")


async def says_nothing(exchange: Exchange) -> None:
    exchange.start()
    exchange.finish()


async def calls_with_half_a_json(exchange: Exchange) -> None:
    exchange.start()
    exchange.call_tool('{"day": ', "look_up_opening_hours")
    exchange.finish("tool_calls")


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (refuses, "brain_rate_limited"),
        (hangs, "brain_timeout"),
        (hangs_after_the_head, "brain_timeout"),
        (talks_nonsense, "brain_garbage"),
        (is_no_model, "brain_cut"),
        (breaks_off, "brain_cut"),
        (says_nothing, "brain_empty"),
        (calls_with_half_a_json, "brain_bad_arguments"),
    ],
)
async def test_the_caller_hears_a_sentence_whatever_the_model_does(
    talk: Talk, behaviour: Any, code: str
) -> None:
    async def recovers(exchange: Exchange) -> None:
        exchange.start()
        exchange.say("Here I am again.")
        exchange.finish()

    talk.model.behaviours += [behaviour, recovers]
    asked_at = await talk.ask()
    heard_at = await talk.line.hears_sound(asked_at, ms=300)
    response = await talk.done()

    assert heard_at - asked_at < 2.5
    assert response["status"] == "failed"
    assert response["status_details"]["error"]["code"] == code
    assert response["output"][-1]["content"][0]["transcript"].startswith("I am sorry")
    assert all(one["status"] == "incomplete" for one in response["output"])
    # The call goes on.
    await talk.sideband.connection.output_audio_buffer.clear()
    before = len(talk.sideband.events)
    await talk.ask()
    done = await talk.sideband.wait_for("response.done", after=before)
    assert done["response"]["status"] == "completed"


async def test_a_429_that_soon_passes_is_not_heard(talk: Talk) -> None:
    async def refuses_for_a_moment(exchange: Exchange) -> None:
        exchange.start("429 Too Many Requests", "application/json", retry_after="0.2")

    async def answers(exchange: Exchange) -> None:
        exchange.start()
        exchange.say("Good morning.")
        exchange.finish()

    talk.model.behaviours += [refuses_for_a_moment, answers]
    asked_at = await talk.ask()
    await talk.line.hears_sound(asked_at)
    response = await talk.done()
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["transcript"] == "Good morning."


async def test_speaking_over_the_agent_stops_the_sound_and_the_model(talk: Talk) -> None:
    """Row O09, with real speech: at once, and truncated to what was really played."""
    exchanges: list[Exchange] = []

    async def goes_on(exchange: Exchange) -> None:
        exchanges.append(exchange)
        exchange.start()
        for number in range(1000):
            exchange.say(f"This is sentence number {number}, and there are many more to come. ")
            await asyncio.sleep(0.2)

    async def listens(exchange: Exchange) -> None:
        exchange.start()
        exchange.say("Yes?")
        exchange.finish()

    talk.model.behaviours += [goes_on, listens]
    asked_at = await talk.ask()
    await talk.line.hears_sound(asked_at, ms=700)
    spoken = talk.line.say(synthesise([INTERRUPTION])[0].samples)
    started = await talk.sideband.wait_for("input_audio_buffer.speech_started")
    started_at = talk.sideband.when(started)
    closed_at = await asyncio.wait_for(exchanges[0].closed, 15)
    truncated = await talk.sideband.wait_for("conversation.item.truncated")
    response = await talk.done()
    await talk.line.said(spoken)
    silent_at = max(spoken.ended, talk.sideband.when(truncated) + 0.3)
    answered_at = await talk.line.hears_sound(silent_at)
    sound = [packet for packet in talk.sound_since(asked_at) if packet.at < answered_at - 0.1]

    assert closed_at - started_at < 1.0
    assert sound[-1].at - started_at < 1.0
    assert response["status"] == "cancelled"
    assert response["status_details"]["reason"] == "turn_detected"
    heard_ms = (sound[-1].timestamp - sound[0].timestamp) / 8 + 20
    assert truncated["audio_end_ms"] == pytest.approx(heard_ms, abs=60)
    # What the model is told it said is what the caller heard of it, and no more.
    *_, said, interrupted = talk.model.requests[1]["messages"]
    assert said["role"] == "assistant"
    assert said["content"].startswith("This is sentence number")
    assert len(said["content"]) < heard_ms / 30
    assert "question" in interrupted["content"].lower()
