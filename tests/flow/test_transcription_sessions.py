"""
Sessions that write down what they hear: `?intent=transcription` (API rows S03, G01, R26, C02, S08, V05).

The node is a real one with the scripted engine; the client is openai-python as it is, wherever it can say so.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from offhook.audio import g711, tones
from testbed import DeveloperApp, Node, Phone
from testbed.model_session import LOUD, ModelSession
from testbed.script import SCRIPT

HEARD = [turn["hears"] for turn in SCRIPT["turns"]]
COMPLETED = "conversation.item.input_audio_transcription.completed"
MANUAL: Any = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}


@pytest.fixture
async def client(node: Node) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=node.seats[0].api_key, base_url=node.base_url, max_retries=0) as ready:
        yield ready


class TranscriptionSession(ModelSession):
    """`client.realtime.connect(extra_query={"intent": "transcription"})`. Nothing of a response may ever come."""

    def __init__(self, client: AsyncOpenAI, model: str = "") -> None:
        super().__init__(client, model, intent="transcription")

    async def __aexit__(self, *about: Any) -> None:
        await super().__aexit__(*about)
        assert not [kind for kind in self.types if kind.startswith("response.")]

    async def update(self, session: Any) -> dict[str, Any]:
        after = len(self.events)
        await self.connection.session.update(session=session)
        shown = (await self.wait_for("session.updated", after=after))["session"]
        assert isinstance(shown, dict)
        return shown


async def test_it_opens_as_a_transcription_session(client: AsyncOpenAI) -> None:
    async with TranscriptionSession(client) as session:
        shown = session.events[0]["session"]
    assert (shown["type"], shown["object"]) == ("transcription", "realtime.transcription_session")
    assert shown["id"].startswith("sess_")
    assert shown["expires_at"] > 0
    assert shown.keys() == {"type", "object", "id", "audio", "include", "expires_at"}
    assert shown["audio"].keys() == {"input"}
    assert shown["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert shown["audio"]["input"]["turn_detection"]["type"] == "server_vad"


async def test_turns_by_voice_become_words_and_nobody_answers(client: AsyncOpenAI) -> None:
    async with TranscriptionSession(client) as session:
        shown = await session.update(
            {
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000},
                        "transcription": {"model": "gpt-4o-transcribe", "language": "en"},
                        "noise_reduction": {"type": "near_field"},
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 400},
                    }
                },
                "include": ["item.input_audio_transcription.logprobs"],
            }
        )
        assert shown["audio"]["input"]["transcription"] == {"model": "gpt-4o-transcribe", "language": "en"}
        assert shown["include"] == ["item.input_audio_transcription.logprobs"]
        after = 0
        for words in HEARD[:2]:
            await session.speak()
            await session.wait_for(COMPLETED, lambda event, words=words: event["transcript"] == words)
            of_turn = session.events[after:]
            after = len(session.events)
            kinds = [event["type"] for event in of_turn if not event["type"].startswith("session.")]
            assert kinds == [
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "conversation.item.added",
                "conversation.item.done",
                "conversation.item.input_audio_transcription.delta",
                COMPLETED,
            ]
            assert len({event.get("item_id") or event["item"]["id"] for event in of_turn[-7:]}) == 1
            completed = of_turn[-1]
            assert completed["usage"]["type"] == "duration"
            assert 0.5 < completed["usage"]["seconds"] < 2
            assert "logprobs" not in completed
    first, second = session.of_type("input_audio_buffer.committed")
    assert (first["previous_item_id"], second["previous_item_id"]) == (None, first["item_id"])


async def test_the_client_may_end_turns_itself(client: AsyncOpenAI) -> None:
    async with TranscriptionSession(client) as session:
        assert (await session.update(MANUAL))["audio"]["input"]["turn_detection"] is None
        await session.append(LOUD)
        await session.connection.input_audio_buffer.clear()
        await session.wait_for("input_audio_buffer.cleared")
        await session.connection.input_audio_buffer.commit(event_id="too_early")
        error = (await session.wait_for("error"))["error"]
        assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "too_early")
        await session.append(LOUD)
        await session.connection.input_audio_buffer.commit()
        completed = await session.wait_for(COMPLETED)
        assert completed["usage"] == {"type": "duration", "seconds": 0.5}
        await session.connection.conversation.item.retrieve(item_id=completed["item_id"])
        item = (await session.wait_for("conversation.item.retrieved"))["item"]
        assert item["content"][0]["transcript"] == completed["transcript"]
        await session.connection.conversation.item.delete(item_id=completed["item_id"])
        await session.wait_for("conversation.item.deleted")
    assert "input_audio_buffer.speech_started" not in session.types


@pytest.mark.parametrize("law", ["PCMU", "PCMA"])
async def test_the_telephones_formats(client: AsyncOpenAI, law: g711.Law) -> None:
    async with TranscriptionSession(client) as session:
        audio_format = {"type": f"audio/{law.lower()}"}
        shown = await session.update({"type": "transcription", "audio": {"input": {"format": audio_format}}})
        assert shown["audio"]["input"]["format"] == audio_format
        loud = g711.encode(tones.tone(300.0, 500, level=0.3), law)
        await session.append(loud + g711.encode(tones.tone(300.0, 700, level=0.0), law), frame=160)
        completed = await session.wait_for(COMPLETED)
    assert completed["transcript"] == HEARD[0]
    assert 0.5 < completed["usage"]["seconds"] < 2


async def test_without_a_transcription_turns_are_told_and_words_are_not(client: AsyncOpenAI) -> None:
    async with TranscriptionSession(client) as session:
        await session.update({"type": "transcription", "audio": {"input": {"transcription": None}}})
        await session.speak()
        await session.wait_for("conversation.item.done")
        await session.update({"type": "transcription", "audio": {"input": {"transcription": {}}}})
        await session.speak()
        completed = await session.wait_for(COMPLETED)
    assert completed["transcript"] == HEARD[1]


async def test_what_asks_for_an_answer_is_refused_by_name_and_the_session_goes_on(
    client: AsyncOpenAI,
) -> None:
    async with TranscriptionSession(client) as session:
        say: Any = session.connection.send
        text = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
        truncate = {"item_id": "item_1", "content_index": 0, "audio_end_ms": 1}
        for kind, fields, remedy in (
            ("response.create", {}, "?model="),
            ("response.cancel", {}, "?model="),
            ("output_audio_buffer.clear", {}, "?model="),
            ("conversation.item.truncate", truncate, "?model="),
            ("conversation.item.create", {"item": text}, "input_audio_buffer.append"),
        ):
            await say({"type": kind, "event_id": f"my {kind}", **fields})
            error = (await session.wait_for("error", lambda e, kind=kind: kind in e["error"]["message"]))[
                "error"
            ]
            assert (error["code"], error["param"]) == ("unsupported_event", "type")
            assert error["event_id"] == f"my {kind}"
            assert remedy in error["message"]
        for update, code, param in (
            ({"type": "realtime"}, "invalid_parameter", "session.type"),
            ({"type": "transcription", "tools": []}, "unknown_parameter", "session.tools"),
        ):
            after = len(session.events)
            await session.connection.session.update(session=update, event_id="mine")  # type: ignore[arg-type]
            error = (await session.wait_for("error", after=after))["error"]
            assert (error["code"], error["param"], error["event_id"]) == (code, param, "mine")
        await session.speak()
        await session.wait_for(COMPLETED)


async def test_a_realtime_session_does_not_become_one(client: AsyncOpenAI) -> None:
    async with ModelSession(client) as session:
        await session.connection.session.update(session=MANUAL)
        error = (await session.wait_for("error"))["error"]
    assert (error["code"], error["param"]) == ("invalid_parameter", "session.type")
    assert "?intent=transcription" in error["message"]


async def test_a_model_in_the_url_chooses_the_engine_and_is_not_shown(client: AsyncOpenAI) -> None:
    """The hosted service refuses a model here; clients of its beta could not leave it out."""
    async with TranscriptionSession(client, "gpt-realtime") as session:
        assert session.events[0]["session"]["type"] == "transcription"
        assert "model" not in session.events[0]["session"]
        await session.speak()
        assert (await session.wait_for(COMPLETED))["transcript"] == HEARD[0]


@pytest.mark.parametrize("intent", ["translation", "", "Transcription"])
async def test_another_intent_is_a_400_that_names_the_one_there_is(client: AsyncOpenAI, intent: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with client.realtime.connect(model="gpt-realtime", extra_query={"intent": intent}):
            pass
    body = caught.value.response.body
    assert caught.value.response.status_code == 400
    assert body is not None
    error = json.loads(body)["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "intent")
    assert "'transcription'" in error["message"]


# Client secrets.


async def _secret(client: AsyncOpenAI, **session: Any) -> str:
    made = await client.realtime.client_secrets.create(session={"type": "transcription", **session})
    assert made.session.type == "transcription"
    assert made.session.object == "realtime.transcription_session"
    return made.value


@pytest.mark.parametrize("query", ["intent=transcription", "model=gpt-realtime", ""])
async def test_a_client_secret_opens_one_by_itself(node: Node, client: AsyncOpenAI, query: str) -> None:
    """The secret says what the session is, in a header or, from a page, as a subprotocol (row S08)."""
    secret = await _secret(
        client, audio={"input": {"transcription": {"model": "whisper-1", "language": "de"}}}
    )
    url = f"{node.base_url.replace('http', 'ws', 1)}/realtime?{query}"
    protocols: Any = ["realtime", f"openai-insecure-api-key.{secret}"]
    for how in ({"additional_headers": {"Authorization": f"Bearer {secret}"}}, {"subprotocols": protocols}):
        async with connect(url, **how) as socket:
            session = json.loads(await socket.recv())["session"]
            assert session["type"] == "transcription"
            assert session["audio"]["input"]["transcription"] == {"model": "whisper-1", "language": "de"}
            assert socket.subprotocol == ("realtime" if "subprotocols" in how else None)


async def test_a_realtime_secret_opens_no_transcription_session(node: Node, client: AsyncOpenAI) -> None:
    made = await client.realtime.client_secrets.create(session={"type": "realtime"})
    async with AsyncOpenAI(api_key=made.value, base_url=node.base_url, max_retries=0) as guest:
        with pytest.raises(InvalidStatus) as caught:
            async with TranscriptionSession(guest):
                pass
    body = caught.value.response.body
    assert caught.value.response.status_code == 400
    assert body is not None
    assert json.loads(body)["error"]["param"] == "intent"


async def test_a_secret_for_what_cannot_be_is_a_400_that_names_it(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError, match=r"audio\.input\.transcription\.model") as caught:
        await _secret(client, model="gpt-4o-transcribe")
    assert caught.value.param == "session.model"


# What it is not.


async def test_the_beta_header_closes_with_4000(client: AsyncOpenAI) -> None:
    """Row S12: transcription sessions of the beta had another shape."""
    headers = {"OpenAI-Beta": "realtime=v1"}
    async with client.realtime.connect(
        extra_query={"intent": "transcription"}, extra_headers=headers
    ) as connection:
        assert (await connection.recv()).type == "error"
        with pytest.raises(ConnectionClosed) as caught:
            await connection.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4000


async def test_a_phone_call_is_not_one(node: Node, phone: Phone) -> None:
    """Rows G01, R10: the 400 says what a call can do instead, and the phone still rings."""
    async with DeveloperApp(node) as app:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        with pytest.raises(BadRequestError) as caught:
            await app.client.realtime.calls.accept(call_id, type="transcription")  # type: ignore[arg-type]
        assert caught.value.param == "session.type"
        assert "create_response" in caught.value.message
        await app.accept(call_id)
        await call.answered()
        call.hang_up()
