"""A real call goes on when the node that is its voice is killed: another node takes it over, conversation included."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband

GREETING = "The bakery."
WHICH = "Which cake?"
ORDERED = ("One cake.", "When?")
BYE = "Goodbye."
# The scripted voice tells from the conversation which turn it is: the caller's n-th message gets the n-th answer. So
# a node that was told nothing of what was said before it came would begin from the top.
SCRIPT = {
    "greeting": GREETING,
    "turns": [
        {"hears": "I would like a cake.", "replies": [{"says": WHICH}]},
        {"hears": "A chocolate one.", "replies": [{"says": " ".join(ORDERED), "sentence_ms": 900}]},
        {"hears": "Tomorrow.", "replies": [{"says": BYE}]},
    ],
}


@pytest.fixture(scope="module")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("spare"), script=SCRIPT) as running:
        yield running


@pytest.fixture
def voice(tmp_path: Path) -> Iterator[Node]:
    """The node that will be killed."""
    folder = tmp_path / "voice"
    folder.mkdir()
    with Node(folder, script=SCRIPT) as running:
        yield running


@pytest.fixture
def front(tmp_path: Path, voice: Node, spare: Node) -> Iterator[Node]:
    """The node that has the phones, and trusts the CAs of the other two."""
    folder = tmp_path / "front"
    folder.mkdir()
    engine = 'kind = "scripted"\n'
    for name, node in (("voice", voice), ("spare", spare)):
        (folder / f"{name}.key").write_text(node.seats[0].api_key)
        engine += f"""
            [upstreams.{name}]
            kind = "offhook"
            url = "{node.https_base_url}"
            api_key_file = "{folder / name}.key"
            ca_file = "{node.ca}"
        """
    engine += """
        [models]
        "*" = ["voice", "spare"]
    """
    with Node(folder, engine=engine) as running:
        yield running


@dataclass
class Talk:
    app: DeveloperApp
    call: PhoneCall
    call_id: str
    sideband: Sideband

    async def speaks(self, ms: int = 500) -> float:
        ends = self.call.speak(ms)
        await asyncio.sleep(max(0.0, ends - time.monotonic()))
        return ends

    async def says(self, text: str, after: int = 0) -> dict[str, Any]:
        """Wait until the agent has said this."""
        return await self.sideband.wait_for(
            "response.output_audio_transcript.done",
            lambda event: event["transcript"] == text,
            after=after,
            timeout=30,
        )

    async def stopped(self, said: dict[str, Any]) -> None:
        """Wait until the caller has heard all of it."""
        await self.sideband.wait_for(
            "output_audio_buffer.stopped",
            lambda event: event["response_id"] == said["response_id"],
            timeout=30,
        )

    async def notes(self) -> list[str]:
        timeline = await self.app.node.timeline(self.app.seat, self.call_id)
        return [entry["title"] for entry in timeline if entry["kind"] == "upstream"]


@asynccontextmanager
async def asked_which_cake(front: Node) -> AsyncIterator[Talk]:
    """A call in which the caller was greeted and has been answered once, all by the first node."""
    async with DeveloperApp(front) as app, Phone(front) as phone:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id, audio={"input": {"transcription": {"model": "whisper-1"}}})
        await call.answered()
        async with Sideband(app.client, call_id) as sideband:
            talk = Talk(app, call, call_id, sideband)
            await sideband.connection.response.create()
            await talk.stopped(await talk.says(GREETING))
            await talk.speaks()
            await talk.stopped(await talk.says(WHICH))
            yield talk
            notes = await talk.notes()
            assert notes[0] == "voice is open"
            assert notes[1].startswith("lost: voice: ")
            assert "spare is open" in notes
            assert sideband.types.count("session.created") == 1
            call.hang_up()
            assert (await sideband.wait_closed())[0] == 1000


async def test_between_two_turns(front: Node, voice: Node) -> None:
    async with asked_which_cake(front) as talk:
        voice.kill()
        await asyncio.sleep(0.3)
        spoke = await talk.speaks()
        said = await talk.says(" ".join(ORDERED))
        await talk.stopped(said)
        assert talk.call.loud_ms(spoke) >= 60 * len("".join(ORDERED)) * 0.7
        await talk.speaks()
        await talk.stopped(await talk.says(BYE))


async def test_in_the_middle_of_an_answer(front: Node, voice: Node) -> None:
    """What was being said ends as failed, once, and the caller gets the answer without speaking again."""
    async with asked_which_cake(front) as talk:
        spoke = await talk.speaks()
        await talk.call.hears_sound(300, since=spoke)
        after = len(talk.sideband.events)
        voice.kill()
        failed = await talk.sideband.wait_for("response.done", after=after)
        assert failed["response"]["status"] == "failed"
        said = await talk.says(" ".join(ORDERED), after=after)
        assert said["response_id"] != failed["response"]["id"]
        await talk.stopped(said)


async def test_while_the_caller_speaks(front: Node, voice: Node) -> None:
    """The node that takes over hears the rest of the sentence, and answers it."""
    async with asked_which_cake(front) as talk:
        ends = talk.call.speak(1200)
        await talk.sideband.wait_for("input_audio_buffer.speech_started", after=_last(talk, "stopped"))
        voice.kill()
        await talk.stopped(await talk.says(" ".join(ORDERED)))
        assert talk.call.loud_ms(since=ends) >= 60 * len("".join(ORDERED)) * 0.7


def _last(talk: Talk, kind: str) -> int:
    types = talk.sideband.types
    return max(number for number, name in enumerate(types) if name == f"output_audio_buffer.{kind}")
