"""The life of a call as its developer and its caller see it: accepted, spoken to, interrupted, ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband
from testbed.script import GREETING, LONG, SHORT, SLOW, TOOL, TOOL_ARGUMENTS

TURN_ORDER = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
RESPONSE_ORDER = [
    "response.created",
    "rate_limits.updated",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "output_audio_buffer.started",
    "response.output_audio_transcript.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "output_audio_buffer.stopped",
]
CALL_ORDER = [
    "response.created",
    "rate_limits.updated",
    "response.output_item.added",
    "conversation.item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
NOT_IN_ORDER = ("conversation.item.input_audio_transcription.", "call.")
"Types that may come anywhere (row O06), and what is told of the call itself to those who ask."

SESSION = {
    "model": "gpt-realtime",
    "instructions": "Be brief.",
    "audio": {
        "input": {
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
            "transcription": {"model": "whisper-1"},
        }
    },
    "tools": [
        {
            "type": "function",
            "name": TOOL,
            "description": "When are we open?",
            "parameters": {"type": "object", "properties": {"day": {"type": "string"}}},
        }
    ],
}


@dataclass
class Conversation:
    app: DeveloperApp
    phone: Phone
    call: PhoneCall
    call_id: str
    sideband: Sideband

    @property
    def seen(self) -> int:
        return len(self.sideband.events)

    async def turn(self, reply: str, *, ms: int = 500) -> int:
        """Speak, and wait until the reply has been heard. Returns how many events came before."""
        before = self.seen
        self.call.speak(ms)
        await self.sideband.wait_for("output_audio_buffer.stopped", after=before, timeout=30)
        done = await self.sideband.wait_for("response.output_audio_transcript.done", after=before)
        assert done["transcript"].strip() == reply
        return before

    async def ask_for_the_tool(self) -> dict[str, str]:
        """Speak until the agent calls its tool; return the call's item."""
        await self.turn(SHORT)
        before = self.seen
        self.call.speak()
        done = await self.sideband.wait_for(
            "response.output_item.done", lambda event: event["item"]["type"] == "function_call", after=before
        )
        await self.sideband.wait_for("response.done", after=before)
        return dict(done["item"])

    async def give_the_tools_output(self, item: dict[str, str]) -> int:
        """Do as an app does when its tool has run (row O08). Returns how many events came before."""
        before = self.seen
        await self.sideband.connection.conversation.item.create(
            item={
                "type": "function_call_output",
                "call_id": item["call_id"],
                "output": '{"open":"nine to five"}',
            }
        )
        await self.sideband.connection.response.create()
        return before


@pytest.fixture
async def talk(node: Node, app: DeveloperApp, phone: Phone) -> AsyncIterator[Conversation]:
    """A call that was accepted and answered, with a sideband on it that asked for call events."""
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id, **SESSION)
    await call.answered()
    async with Sideband(app.client, call_id, events="call") as sideband:
        await sideband.wait_for("session.created")
        yield Conversation(app, phone, call, call_id, sideband)


def in_order(sideband: Sideband, after: int, until: str) -> list[str]:
    """Return the types from `after` to the first `until`, repeated deltas once, without those that have no order."""
    types: list[str] = []
    for event in sideband.events[after:]:
        kind = event["type"]
        if not kind.startswith(NOT_IN_ORDER) and (not types or types[-1] != kind):
            types.append(kind)
        if kind == until:
            break
    return types


async def test_the_caller_hears_the_greeting(talk: Conversation) -> None:
    before = talk.seen
    asked_at = time.monotonic()
    await talk.sideband.connection.response.create(response={"instructions": "Greet the caller."})
    heard_at = await talk.call.hears_sound(100, since=asked_at)
    stopped = await talk.sideband.wait_for("output_audio_buffer.stopped", after=before)

    assert in_order(talk.sideband, before, "output_audio_buffer.stopped") == RESPONSE_ORDER
    started = talk.sideband.of_type("output_audio_buffer.started")[0]
    assert abs(talk.sideband.when(started) - heard_at) < 1.0
    await talk.call.hears_silence(200)
    # A character is 60 ms of the scripted engine's voice.
    assert talk.call.loud_ms(asked_at) == pytest.approx(60 * len(GREETING), abs=80)
    last_heard = max(at for at, level in talk.call.heard if level >= -45)
    assert abs(talk.sideband.when(stopped) - last_heard) < 1.0


async def test_a_spoken_turn_and_its_answer_come_in_order(talk: Conversation) -> None:
    before = await talk.turn(SHORT)

    assert in_order(talk.sideband, before, "output_audio_buffer.stopped") == TURN_ORDER + RESPONSE_ORDER
    turn = [event for event in talk.sideband.events[before:] if event["type"] in TURN_ORDER]
    started, stopped, committed, added, done = turn[:5]
    ids = {
        started["item_id"],
        stopped["item_id"],
        committed["item_id"],
        added["item"]["id"],
        done["item"]["id"],
    }
    assert len(ids) == 1
    assert done["item"]["role"] == "user"
    spoken_ms = stopped["audio_end_ms"] - started["audio_start_ms"]
    # The prefix of 300 ms (less where the call had just begun), 500 ms of speech, 300 ms of silence.
    assert 700 <= spoken_ms <= 1200
    heard = talk.sideband.of_type("conversation.item.input_audio_transcription.completed")[0]
    assert heard["transcript"] == "Good morning."
    assert heard["item_id"] == started["item_id"]


async def test_a_tool_is_called_its_output_taken_and_the_answer_spoken(talk: Conversation) -> None:
    item = await talk.ask_for_the_tool()

    second = [event for event in talk.sideband.events if event["type"] == "response.created"][1]
    position = talk.sideband.events.index(second)
    assert in_order(talk.sideband, position, "response.done") == CALL_ORDER
    assert (item["name"], item["arguments"], item["status"]) == (TOOL, TOOL_ARGUMENTS, "completed")
    done = talk.sideband.of_type("response.done")[-1]["response"]
    assert [one["type"] for one in done["output"]] == ["function_call"]

    before = await talk.give_the_tools_output(item)
    await talk.sideband.wait_for("response.created", after=before)
    types = in_order(talk.sideband, before, "response.created")
    assert types == ["conversation.item.added", "conversation.item.done", "response.created"]
    assert await talk.call.hears_sound(100, since=talk.sideband.at[before])


async def test_speaking_over_the_agent_stops_it_while_it_still_thinks(talk: Conversation) -> None:
    """The response is not finished when the caller interrupts it: it is cancelled (row O09)."""
    before = await talk.give_the_tools_output(await talk.ask_for_the_tool())
    response = (await talk.sideband.wait_for("response.created", after=before))["response"]
    await talk.sideband.wait_for("output_audio_buffer.started", after=before)
    sound_from = await talk.call.hears_sound(600, since=talk.sideband.at[before])
    talk.call.speak(900)

    done = await talk.sideband.wait_for("response.done", after=before)
    truncated = await talk.sideband.wait_for("conversation.item.truncated", after=before)
    cleared = await talk.sideband.wait_for("output_audio_buffer.cleared", after=before)
    started = await talk.sideband.wait_for("input_audio_buffer.speech_started", after=before)
    silent_from = await talk.call.hears_silence(300)

    assert done["response"]["id"] == cleared["response_id"] == response["id"]
    assert done["response"]["status"] == "cancelled"
    assert done["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert done["response"]["output"][0]["status"] == "incomplete"
    assert silent_from - talk.sideband.when(started) < 1.0
    heard_ms = talk.call.loud_ms(sound_from)
    assert truncated["audio_end_ms"] == pytest.approx(heard_ms, abs=120)
    assert truncated["audio_end_ms"] < 60 * len(SLOW[0])
    order = in_order(talk.sideband, before, "response.done")
    assert order.index("input_audio_buffer.speech_started") < order.index("output_audio_buffer.cleared")
    assert SLOW[1] not in json.dumps(talk.sideband.events[before:])


async def test_speaking_over_an_answer_that_is_finished_cuts_what_was_not_heard(talk: Conversation) -> None:
    """The response was done, its sound was not: nothing is done twice (row O09)."""
    before = await talk.give_the_tools_output(await talk.ask_for_the_tool())
    await talk.sideband.wait_for("output_audio_buffer.started", after=before)
    talk.call.speak()  # interrupts; the next answer is made at once
    interrupted = await talk.sideband.wait_for("output_audio_buffer.cleared", after=before)
    after = talk.sideband.events.index(interrupted) + 1
    created = await talk.sideband.wait_for("response.created", after=after)
    done = await talk.sideband.wait_for(
        "response.done", lambda event: event["response"]["id"] == created["response"]["id"], after=after
    )
    sound_from = await talk.call.hears_sound(500, since=talk.sideband.when(created))
    mark = talk.seen
    talk.call.speak()
    cleared = await talk.sideband.wait_for("output_audio_buffer.cleared", after=mark)
    truncated = await talk.sideband.wait_for("conversation.item.truncated", after=mark)
    await talk.call.hears_silence(200)

    assert done["response"]["status"] == "completed"
    assert cleared["response_id"] == created["response"]["id"]
    assert truncated["item_id"] == done["response"]["output"][0]["id"]
    cut_at = talk.sideband.when(cleared)
    assert truncated["audio_end_ms"] == pytest.approx(talk.call.loud_ms(sound_from, cut_at + 0.3), abs=120)
    assert truncated["audio_end_ms"] < 60 * len(LONG)
    ids = [event["response"]["id"] for event in talk.sideband.of_type("response.done")]
    assert ids.count(created["response"]["id"]) == 1


async def test_the_caller_hangs_up(talk: Conversation) -> None:
    """What was under way is still told, then the sideband closes with 1000 (rows S16 and S17)."""
    await talk.turn(SHORT)
    before = talk.seen
    talk.call.speak(600)
    await talk.sideband.wait_for("input_audio_buffer.speech_started", after=before)
    await asyncio.sleep(0.7)  # the utterance is over, the pause that ends the turn is not
    talk.call.hang_up()

    assert (await talk.sideband.wait_closed())[0] == 1000
    assert (await talk.call.ended()).cause == "local_bye"
    ended = talk.sideband.of_type("call.ended")[0]
    assert (ended["reason"], ended["call_id"]) == ("remote_hangup", talk.call_id)
    created = {event["response"]["id"] for event in talk.sideband.of_type("response.created")}
    assert created == {event["response"]["id"] for event in talk.sideband.of_type("response.done")}
    webhook = await talk.app.next("realtime.call.ended")
    assert webhook.event.data.call_id == talk.call_id
    assert webhook.event.data.reason == "remote_hangup"


async def test_closing_the_sideband_does_not_end_the_call(talk: Conversation) -> None:
    await talk.turn(SHORT)
    await talk.sideband.connection.close()
    await asyncio.sleep(0.2)
    assert talk.call.alive

    async with Sideband(talk.app.client, talk.call_id) as again:
        created = await again.wait_for("session.created")
        assert created["session"]["instructions"] == "Be brief."
        talk.call.speak()
        await again.wait_for("response.done")
        talk.call.hang_up()
        assert (await again.wait_closed())[0] == 1000
    assert created["session"]["id"] == talk.sideband.events[0]["session"]["id"]


async def test_two_sidebands_get_the_same_and_errors_go_to_the_sender(talk: Conversation) -> None:
    async with Sideband(talk.app.client, talk.call_id) as other:
        await other.wait_for("session.created")
        await talk.sideband.connection.conversation.item.delete(item_id="item_none", event_id="mine")
        error = (await talk.sideband.wait_for("error"))["error"]
        assert (error["code"], error["event_id"]) == ("item_delete_invalid_item_id", "mine")
        await other.connection.response.create()
        await other.wait_for("output_audio_buffer.stopped")
        await talk.sideband.wait_for("output_audio_buffer.stopped")
        assert not other.of_type("error")
        # The first has asked for events of the call, too.
        mine = [
            event["event_id"]
            for event in talk.sideband.events[1:]
            if not event["type"].startswith(("error", "call."))
        ]
        theirs = [event["event_id"] for event in other.events[1:]]
        assert mine == theirs


async def test_the_app_hangs_up(talk: Conversation) -> None:
    await talk.app.client.realtime.calls.hangup(talk.call_id)

    assert (await talk.call.ended()).cause == "remote_bye"
    assert (await talk.sideband.wait_closed())[0] == 1000
    assert talk.sideband.of_type("call.ended")[0]["reason"] == "hangup"


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_a_call_over_a_connection(node: Node, app: DeveloperApp, transport: str) -> None:
    async with Phone(node, transport) as phone:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id)
        await call.answered()
        async with Sideband(app.client, call_id) as sideband:
            await sideband.connection.response.create()
            await call.hears_sound(200)
            await sideband.wait_for("response.done")
            await app.client.realtime.calls.refer(call_id, target_uri="sip:agent@example.com")
            assert (await call.ended()).cause == "remote_bye"
        described = await node.describe(app.seat, call_id)
        assert described["transport"] == transport
        assert described["termination"]["reason"] == "transferred"


async def test_the_timeline_tells_the_whole_story(node: Node, talk: Conversation) -> None:
    await talk.turn(SHORT)
    talk.call.press("7")
    await talk.sideband.wait_for("input_audio_buffer.dtmf_event_received")
    await talk.app.client.realtime.calls.hangup(talk.call_id)
    await talk.call.ended()
    await talk.sideband.wait_closed()

    entries = await node.timeline(talk.app.seat, talk.call_id)
    titles = [f"{entry['kind']} {entry['title']}" for entry in entries]
    text = "\n".join(titles)
    wanted = (
        "sip INVITE",
        "sip SIP/2.0 100",
        "sip SIP/2.0 180",
        "webhook attempt 1",
        "sip SIP/2.0 200",
        "sip ACK",
    )
    for line in (*wanted, "sip BYE"):
        assert any(title.startswith(line) for title in titles), f"{line} is missing from:\n{text}"
    kinds = {entry["kind"] for entry in entries}
    assert {"sip", "webhook", "rest", "sideband", "media", "call"} <= kinds, text
    assert any("accept" in entry["title"] for entry in entries if entry["kind"] == "rest"), text
    assert any("Good morning." in json.dumps(entry) for entry in entries), text
    assert any(SHORT in json.dumps(entry) for entry in entries), text
    assert [entry["ms"] for entry in entries] == sorted(entry["ms"] for entry in entries)
    described = await node.describe(talk.app.seat, talk.call_id)
    assert described["state"] == "ended"
    assert described["termination"]["reason"] == "hangup"
