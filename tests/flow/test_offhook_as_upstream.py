"""A real call through two nodes: one has the phone, a session of the other one is its voice."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from offhook.audio import g711, tones
from offhook.media import negotiate
from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband
from testbed.rtp import Rtp
from testbed.script import GREETING, SCRIPT, SHORT, TOOL, TOOL_ARGUMENTS

SESSION = {
    "instructions": "Answer the phone for a bakery.",
    "audio": {"input": {"transcription": {"model": "whisper-1"}}},
    "tools": [{"type": "function", "name": TOOL, "parameters": {"type": "object"}}],
}


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The node that answers."""
    with Node(tmp_path_factory.mktemp("voice"), script=SCRIPT) as running:
        yield running


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, voice: Node) -> Iterator[Node]:
    """The node that has the phones."""
    engine = f"""
        kind = "scripted"
        [upstreams.voice]
        kind = "offhook"
        url = "{voice.base_url}"
        api_key_env = "TEST_KEY_OF_VOICE"
        [models]
        "*" = "voice"
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY_OF_VOICE", voice.seats[0].api_key)
        with Node(tmp_path_factory.mktemp("front"), engine=engine, seats=8) as running:
            yield running


@dataclass
class Talk:
    app: DeveloperApp
    call: PhoneCall
    rtp: Rtp
    sideband: Sideband

    @property
    def remote(self) -> tuple[str, int]:
        return negotiate.complete(self.call.offer, self.call._answer.result().body).remote

    @property
    def heard(self) -> bytes:
        return b"".join(data[12:] for _, data, _ in self.rtp.came if len(data) == 172)

    async def speak(self, ms: int = 500) -> None:
        await self.rtp.speak(self.remote, ms, loud=True)
        await self.rtp.speak(self.remote, 700, loud=False)


@asynccontextmanager
async def talking(front: Node) -> AsyncIterator[Talk]:
    async with DeveloperApp(front) as app, Phone(front) as phone, Rtp() as rtp:
        call = await phone.dial(app.seat.project, media_port=rtp.port)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id, **SESSION)
        await call.answered()
        async with Sideband(app.client, call_id) as sideband:
            yield Talk(app, call, rtp, sideband)
            call.hang_up()
            assert (await sideband.wait_closed())[0] == 1000


async def test_the_session_is_the_other_nodes_in_the_phones_own_codec(front: Node) -> None:
    async with talking(front) as talk:
        session = (await talk.sideband.wait_for("session.created"))["session"]
    assert session["instructions"] == SESSION["instructions"]
    assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert session["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    assert session["tools"][0]["name"] == TOOL


async def test_the_agents_bytes_reach_the_phone_untouched(front: Node) -> None:
    async with talking(front) as talk:
        await talk.sideband.connection.response.create()
        await talk.sideband.wait_for("output_audio_buffer.stopped")
        tone = g711.encode(tones.tone(440.0, 1000, level=0.2), "PCMU")
        assert tone[: len(GREETING) * 60 * 8] in talk.heard


async def test_the_callers_bytes_reach_the_other_node_untouched(front: Node) -> None:
    noise = [random.Random(number).randbytes(160) for number in range(30)]
    async with talking(front) as talk:
        for frame in noise:
            talk.rtp.send_raw(talk.rtp.packet(frame), talk.remote)
            await asyncio.sleep(0.02)
        await talk.rtp.speak(talk.remote, 900, loud=False)
        said = await talk.sideband.wait_for("conversation.item.input_audio_transcription.completed")
        assert said["transcript"] == "Good morning."
        await talk.sideband.connection.conversation.item.retrieve(item_id=said["item_id"])
        item = (await talk.sideband.wait_for("conversation.item.retrieved"))["item"]
        audio = base64.b64decode(item["content"][0]["audio"])
        assert sum(frame in audio for frame in noise) >= 25, "a few may be late on a busy machine"


async def test_words_a_function_call_and_an_interruption(front: Node) -> None:
    async with talking(front) as talk:
        sideband, connection = talk.sideband, talk.sideband.connection
        await talk.speak()
        answered = await sideband.wait_for("response.output_audio_transcript.done")
        assert answered["transcript"] == SHORT
        await sideband.wait_for("output_audio_buffer.stopped")

        await talk.speak()
        asked = await sideband.wait_for("response.function_call_arguments.done")
        assert (asked["name"], asked["arguments"]) == (TOOL, TOOL_ARGUMENTS)
        await sideband.wait_for(
            "response.done", lambda event: event["response"]["output"][0]["type"] == "function_call"
        )
        output = {"type": "function_call_output", "call_id": asked["call_id"], "output": '{"opens":"nine"}'}
        await connection.conversation.item.create(item=output)
        await connection.response.create()
        after = len(sideband.events)
        started = await sideband.wait_for("output_audio_buffer.started", after=after)

        await talk.speak()
        cleared = await sideband.wait_for("output_audio_buffer.cleared", after=after)
        assert cleared["response_id"] == started["response_id"]
        done = await sideband.wait_for("response.done", after=after)
        assert done["response"]["status_details"]["reason"] == "turn_detected"
        truncated = await sideband.wait_for("conversation.item.truncated", after=after)
        assert truncated["item_id"] == done["response"]["output"][0]["id"]
        assert 0 < truncated["audio_end_ms"] < 3000
        heard = sideband.of_type("conversation.item.input_audio_transcription.completed")
        assert [event["transcript"] for event in heard[:2]] == ["Good morning.", "When are you open?"]
