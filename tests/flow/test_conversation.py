"""Item 4: the conversation's items, and what of them the engine gets (rows E18 to E22, G16), on real nodes."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from testbed import Node
from testbed.language_model import Exchange, LanguageModel, engine_of
from testbed.model_session import LOUD, ModelSession
from testbed.script import GREETING, SCRIPT

TEXT = {"type": "realtime", "output_modalities": ["text"], "instructions": "Be brief."}


def written(text: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": text}],
    } | fields


async def add(session: ModelSession, text: str, previous: str | None = None, **fields: Any) -> dict[str, Any]:
    """Create an item; return `conversation.item.added`, after which its `done` came."""
    before = len(session.events)
    where = {"previous_item_id": previous} if previous is not None else {}
    await session.connection.conversation.item.create(item=written(text, **fields), **where)
    added = await session.wait_for("conversation.item.added", after=before)
    done = await session.wait_for("conversation.item.done", after=before)
    assert done["item"] == added["item"]
    assert done["previous_item_id"] == added["previous_item_id"]
    return added


async def fault(session: ModelSession, event_id: str) -> dict[str, Any]:
    """Return the error that answers this event of ours."""
    told = await session.wait_for("error", lambda event: event["error"]["event_id"] == event_id)
    error: dict[str, Any] = told["error"]
    return error


async def retrieved(session: ModelSession, item_id: str) -> dict[str, Any]:
    before = len(session.events)
    await session.connection.conversation.item.retrieve(item_id=item_id)
    item: dict[str, Any] = (await session.wait_for("conversation.item.retrieved", after=before))["item"]
    return item


async def answered(session: ModelSession) -> dict[str, Any]:
    """Ask for a response and wait for its end."""
    before = len(session.events)
    await session.connection.response.create()
    response: dict[str, Any] = (await session.wait_for("response.done", after=before))["response"]
    return response


@pytest.fixture
async def client(node: Node) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=node.seat().api_key, base_url=node.base_url, max_retries=0) as ready:
        yield ready


async def test_items_are_made_found_and_deleted_wherever_they_stand(client: AsyncOpenAI) -> None:
    """Rows E18, E20, E22."""
    async with ModelSession(client) as session:
        items = session.connection.conversation.item
        first = await add(session, "one", id="item_one")
        assert (first["item"]["id"], first["previous_item_id"]) == ("item_one", None)
        second = await add(session, "two")
        assert second["item"]["id"].startswith("item_")
        assert second["previous_item_id"] == "item_one"
        assert (await add(session, "zero", "root", id="item_zero"))["previous_item_id"] is None
        between = await add(session, "half", "item_one", id="item_half")
        assert between["previous_item_id"] == "item_one"
        # Now the order is zero, one, half, two.
        assert (await add(session, "more", "item_zero"))["previous_item_id"] == "item_zero"
        assert (await add(session, "last"))["previous_item_id"] == second["item"]["id"]

        found = await retrieved(session, "item_half")
        assert (found["role"], found["content"]) == ("user", [{"type": "input_text", "text": "half"}])
        await items.delete(item_id="item_half")
        assert (await session.wait_for("conversation.item.deleted"))["item_id"] == "item_half"
        assert (await add(session, "again", "item_one"))["previous_item_id"] == "item_one"


async def test_what_cannot_be_done_to_an_item_is_said_by_its_code(client: AsyncOpenAI) -> None:
    """Rows E18, E20, E21, E22; the client's own `event_id` is repeated, and the session goes on."""
    async with ModelSession(client) as session:
        items = session.connection.conversation.item
        await add(session, "one", id="item_one")
        await items.create(item=written("x", id="item_one"), event_id="twice")
        assert (await fault(session, "twice"))["param"] == "item.id"
        await items.create(item=written("x"), previous_item_id="item_yo", event_id="nowhere")
        assert (await fault(session, "nowhere"))["param"] == "previous_item_id"
        await items.retrieve(item_id="item_yo", event_id="unknown")
        assert (await fault(session, "unknown"))["code"] == "item_retrieve_invalid_item_id"
        await items.truncate(item_id="item_yo", content_index=0, audio_end_ms=0, event_id="uncut")
        assert (await fault(session, "uncut"))["code"] == "item_truncate_invalid_item_id"
        await items.truncate(item_id="item_one", content_index=0, audio_end_ms=0, event_id="silent")
        assert (await fault(session, "silent"))["param"] == "item_id"
        await items.delete(item_id="yo", event_id="undeleted")
        error = await fault(session, "undeleted")
        assert error["code"] == "item_delete_invalid_item_id"
        assert error["message"] == "Error deleting item: the item with id 'yo' does not exist."
        assert (await add(session, "two"))["previous_item_id"] == "item_one"


@pytest.mark.parametrize(("kind", "bytes_per_ms"), [("audio/pcm", 48), ("audio/pcmu", 8)])
async def test_items_are_retrieved_with_their_sound(
    client: AsyncOpenAI, kind: str, bytes_per_ms: int
) -> None:
    """Row E20: the caller's and the agent's, each in the session's format of its direction."""
    audio_format = {"type": kind} | ({"rate": 24000} if kind == "audio/pcm" else {})
    async with ModelSession(client) as session:
        connection = session.connection
        audio = {
            "input": {"turn_detection": None, "format": audio_format},
            "output": {"format": audio_format},
        }
        await connection.session.update(session={"type": "realtime", "audio": audio})
        said = LOUD if kind == "audio/pcm" else bytes(range(256)) * 20
        await connection.input_audio_buffer.append(audio=base64.b64encode(said).decode())
        await connection.input_audio_buffer.commit()
        spoken = (await session.wait_for("conversation.item.done"))["item"]
        assert "audio" not in spoken["content"][0]
        part = (await retrieved(session, spoken["id"]))["content"][0]
        assert part["type"] == "input_audio"
        assert base64.b64decode(part["audio"]) == said

        response = await answered(session)
        part = (await retrieved(session, response["output"][0]["id"]))["content"][0]
        assert (part["type"], part["transcript"]) == (
            "output_audio",
            response["output"][0]["content"][0]["transcript"],
        )
        assert base64.b64decode(part["audio"]) == session.sound()
        assert len(session.sound()) == len(part["transcript"]) * 60 * bytes_per_ms


async def test_a_truncation_is_cut_at_the_end_of_the_sound_and_can_be_told_again(client: AsyncOpenAI) -> None:
    """Row E21: the default."""
    async with ModelSession(client) as session:
        items = session.connection.conversation.item
        item = (await answered(session))["output"][0]
        whole_ms = len(GREETING) * 60
        for asked, told, words in (
            (whole_ms + 5000, whole_ms, GREETING),
            (whole_ms, whole_ms, GREETING),
            (400, 400, GREETING.split()[0]),
            (600, 400, GREETING.split()[0]),
            (0, 0, ""),
        ):
            before = len(session.events)
            await items.truncate(item_id=item["id"], content_index=0, audio_end_ms=asked)
            cut = await session.wait_for("conversation.item.truncated", after=before)
            assert (cut["item_id"], cut["content_index"], cut["audio_end_ms"]) == (item["id"], 0, told)
            part = (await retrieved(session, item["id"]))["content"][0]
            assert part["transcript"] == words
            assert len(base64.b64decode(part.get("audio", ""))) == told * 48
        await items.truncate(item_id=item["id"], content_index=1, audio_end_ms=0, event_id="no_such_part")
        assert (await fault(session, "no_such_part"))["param"] == "content_index"


async def test_a_strict_node_refuses_a_truncation_past_the_end(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Row E21, with `engine.strict_truncation`: in the hosted service's words."""
    engine = 'kind = "scripted"\nstrict_truncation = true'
    with Node(tmp_path_factory.mktemp("strict-node"), script=SCRIPT, engine=engine) as strict:
        async with (
            AsyncOpenAI(api_key=strict.seat().api_key, base_url=strict.base_url, max_retries=0) as client,
            ModelSession(client) as session,
        ):
            items = session.connection.conversation.item
            item = (await answered(session))["output"][0]
            whole_ms = len(item["content"][0]["transcript"]) * 60
            await items.truncate(
                item_id=item["id"], content_index=0, audio_end_ms=whole_ms + 1, event_id="past"
            )
            error = await fault(session, "past")
            assert error["code"] == "invalid_value"
            assert error["param"] == "audio_end_ms"
            assert error["message"] == (
                f"Audio content of {whole_ms}ms is already shorter than {whole_ms + 1}ms"
            )
            await items.truncate(item_id=item["id"], content_index=0, audio_end_ms=whole_ms)
            assert (await session.wait_for("conversation.item.truncated"))["audio_end_ms"] == whole_ms


# What a language model gets.


@pytest.fixture(scope="module")
def address() -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture(scope="module")
def chat_node(tmp_path_factory: pytest.TempPathFactory, address: socket.socket) -> Iterator[Node]:
    """Its model takes in 5,000 tokens: some 900 for the conversation, when 4,096 are kept for the answer."""
    engine = engine_of(address, context_tokens=5000)
    with Node(tmp_path_factory.mktemp("context-node"), engine=engine, seats=10) as running:
        yield running


@pytest.fixture
async def model(address: socket.socket) -> AsyncIterator[LanguageModel]:
    async def answer(exchange: Exchange) -> None:
        exchange.start()
        exchange.say("Yes.")
        exchange.finish()

    async with LanguageModel(address) as listening:
        listening.behaviours.extend([answer] * 10)
        yield listening


@pytest.fixture
async def talk(chat_node: Node, model: LanguageModel) -> AsyncIterator[ModelSession]:
    seat = chat_node.seat()
    async with (
        AsyncOpenAI(api_key=seat.api_key, base_url=chat_node.base_url, max_retries=0) as client,
        ModelSession(client) as session,
    ):
        await session.connection.session.update(session=TEXT)
        await session.wait_for("session.updated")
        yield session


def read_by(model: LanguageModel) -> list[str]:
    """Return what of the conversation the model got last, behind the instructions."""
    system, *messages = model.requests[-1]["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    return [message["content"][:3].strip() for message in messages]


def long(name: str) -> str:
    """About 200 tokens."""
    return f"{name:3}" + "x" * 780


@pytest.mark.models
async def test_the_model_gets_the_items_as_they_stand(talk: ModelSession, model: LanguageModel) -> None:
    """Rows E18, E22."""
    for name in ("b", "c", "d"):
        await add(talk, name, id=f"item_{name}")
    await add(talk, "a", "root")
    await talk.connection.conversation.item.delete(item_id="item_c")
    assert (await answered(talk))["status"] == "completed"
    assert read_by(model) == ["a", "b", "d"]
    await add(talk, "e")
    await answered(talk)
    assert read_by(model) == ["a", "b", "d", "Yes", "e"]


@pytest.mark.models
async def test_auto_lets_the_oldest_go_and_they_are_still_there(
    talk: ModelSession, model: LanguageModel
) -> None:
    """Row G16: `auto` is the default."""
    assert talk.of_type("session.created")[0]["session"]["truncation"] == "auto"
    for name in "abcdef":
        await add(talk, long(name), id=f"item_{name}")
    assert (await answered(talk))["status"] == "completed"
    assert read_by(model) == ["c", "d", "e", "f"]
    await add(talk, "g")
    await answered(talk)
    assert read_by(model) == ["c", "d", "e", "f", "Yes", "g"]
    assert (await retrieved(talk, "item_a"))["content"][0]["text"] == long("a")


@pytest.mark.models
async def test_disabled_fails_rather_than_forgets(talk: ModelSession, model: LanguageModel) -> None:
    """Row G16."""
    await talk.connection.session.update(session={"type": "realtime", "truncation": "disabled"})
    for name in "abcdef":
        await add(talk, long(name), id=f"item_{name}")
    failed = await answered(talk)
    assert failed["status"] == "failed"
    assert failed["status_details"]["error"]["code"] == "context_length_exceeded"
    assert model.requests == []
    for name in "ae":
        await talk.connection.conversation.item.delete(item_id=f"item_{name}")
    assert (await answered(talk))["status"] == "completed"
    assert read_by(model) == ["b", "c", "d", "f"]


@pytest.mark.models
async def test_a_retention_ratio_with_a_limit_of_its_own(talk: ModelSession, model: LanguageModel) -> None:
    """Row G16: cut to half of 500 tokens once there are more, and then not again for a while."""
    policy = {
        "type": "retention_ratio",
        "retention_ratio": 0.5,
        "token_limits": {"post_instructions": 500},
    }
    await talk.connection.session.update(session={"type": "realtime", "truncation": policy})
    updated = await talk.wait_for("session.updated", lambda event: event["session"]["truncation"] != "auto")
    assert updated["session"]["truncation"] == policy
    for name in "abc":
        await add(talk, long(name))
    await answered(talk)
    assert read_by(model) == ["c"]
    await add(talk, long("d"))
    await answered(talk)
    assert read_by(model) == ["c", "Yes", "d"]
