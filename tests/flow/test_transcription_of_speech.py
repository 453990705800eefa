"""A transcription session with the embedded engine: real speech, real words (API rows S03, G01, G11)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from openai import AsyncOpenAI

from offhook.audio import g711
from offhook.cli.phone.voice import synthesise
from offhook.realtime.engines.local.config import default_cache_dir
from testbed import Node
from testbed.model_session import ModelSession

pytestmark = [pytest.mark.models, pytest.mark.alone]

QUESTION = "When do you open on Monday?"
STATEMENT = "We would like to order twelve loaves of bread."
SILENCE = b"\xff" * 8 * 1000


@pytest.fixture(scope="module")
def speech_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    engine = f'kind = "local"\nworkers = 1\nmodel_dir = {json.dumps(str(default_cache_dir()))}'
    with Node(tmp_path_factory.mktemp("speech-node"), engine=engine) as running:
        yield running


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


async def test_what_is_said_is_written_down_turn_by_turn(speech_node: Node) -> None:
    async with AsyncOpenAI(api_key=speech_node.seats[0].api_key, base_url=speech_node.base_url) as client:
        async with ModelSession(client, "", intent="transcription") as session:
            await session.connection.session.update(
                session={
                    "type": "transcription",
                    "audio": {
                        "input": {
                            "format": {"type": "audio/pcmu"},
                            "transcription": {"model": "whisper-1", "language": "en"},
                        }
                    },
                }
            )
            for utterance in synthesise([QUESTION, STATEMENT]):
                said, audio = utterance.text, g711.encode(utterance.samples, "PCMU")
                after = len(session.events)
                await session.append(audio + SILENCE, frame=160)
                heard = await session.wait_for(
                    "conversation.item.input_audio_transcription.completed", after=after
                )
                assert len(set(words(said)) & set(words(heard["transcript"]))) >= len(words(said)) - 1
        assert not [kind for kind in session.types if kind.startswith("response.")]
