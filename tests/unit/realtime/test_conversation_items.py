"""What clients ask of the conversation's items (rows E18 to E22, G16), with an engine played by the test."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from offhook.realtime.conversation import MAX_ITEMS, ConversationRules, Item
from offhook.realtime.engine import (
    Respond,
    ResponseSpeech,
    Transcribe,
    Transcribed,
)
from offhook.realtime.sideband_audio import convert
from testbed.by_hand import Desk, types

MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}


def test_items_in_the_places_that_were_asked_for() -> None:
    """Row E18."""
    desk = Desk()
    first = desk.send("conversation.item.create", item=MESSAGE | {"id": "a"})
    assert types(first) == ["conversation.item.added", "conversation.item.done"]
    assert first[0]["previous_item_id"] is None
    assert first[0]["item"] == MESSAGE | {"id": "a", "object": "realtime.item", "status": "completed"}
    assert desk.send("conversation.item.create", item=MESSAGE | {"id": "b"})[0]["previous_item_id"] == "a"
    root = desk.send("conversation.item.create", item=MESSAGE | {"id": "c"}, previous_item_id="root")
    assert root[0]["previous_item_id"] is None
    after = desk.send("conversation.item.create", item=MESSAGE | {"id": "d"}, previous_item_id="a")
    assert after[0]["previous_item_id"] == "a"
    assert [item.id for item in desk.session.conversation] == ["c", "a", "d", "b"]
    unknown = desk.error("conversation.item.create", item=MESSAGE, previous_item_id="z")
    assert unknown["param"] == "previous_item_id"
    assert desk.error("conversation.item.create", item=MESSAGE | {"id": "a"})["param"] == "item.id"
    assert len(desk.session.conversation) == 4


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "x"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_audio", "transcript": "x"}]},
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "call_1"},
        {"type": "function_call_output", "call_id": "call_1", "output": "{}"},
    ],
)
def test_every_kind_of_item(item: dict[str, Any]) -> None:
    """Row E19."""
    desk = Desk()
    events = desk.send("conversation.item.create", item=item)
    assert types(events) == ["conversation.item.added", "conversation.item.done"]
    echoed = events[0]["item"]
    assert {name: echoed[name] for name in item} == item
    assert desk.respond().items[0]["type"] == item["type"]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "mcp_approval_response", "id": "x"}, "item.type"),
        ({"type": "message", "role": "robot", "content": []}, "item.role"),
        (
            {"type": "message", "role": "user", "content": [{"type": "text", "text": "x"}]},
            "item.content[0].type",
        ),
        ({"type": "message", "role": "user", "content": [{"type": "input_text"}]}, "item.content[0].text"),
        ({"type": "function_call_output", "call_id": "c", "output": {}}, "item.output"),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "?"}]},
            "item.content[0].audio",
        ),
        ("x", "item"),
        ({}, "item.type"),
    ],
)
def test_bad_items(item: Any, param: str) -> None:
    assert Desk().error("conversation.item.create", item=item)["param"] == param


def test_audio_that_a_client_wrote_is_put_into_words_first() -> None:
    desk = Desk()
    sound = base64.b64encode(b"\0" * 48000).decode()
    item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": sound}]}
    desk.send("conversation.item.create", item=item)
    (transcribe,) = desk.commands(Transcribe)
    # A second of 24 kHz PCM is a second of G.711.
    assert len(transcribe.audio) == pytest.approx(8000, abs=20)
    desk.send("response.create")
    assert desk.commands(Respond) == []
    desk.engine(Transcribed(transcribe.item_id, transcribe.revision, "Hello.", 1.0))
    (respond,) = desk.commands(Respond)
    assert respond.items[0]["content"][0]["transcript"] == "Hello."


def test_retrieve_and_delete() -> None:
    """Rows E20, E22."""
    desk = Desk()
    desk.send("conversation.item.create", item=MESSAGE | {"id": "a"})
    (event,) = desk.send("conversation.item.retrieve", item_id="a")
    assert event["item"]["content"] == MESSAGE["content"]
    (event,) = desk.send("conversation.item.delete", item_id="a")
    assert (event["type"], event["item_id"]) == ("conversation.item.deleted", "a")
    assert desk.error("conversation.item.retrieve", item_id="a")["code"] == "item_retrieve_invalid_item_id"
    error = desk.error("conversation.item.delete", item_id="yo")
    assert error["code"] == "item_delete_invalid_item_id"
    assert error["message"] == "Error deleting item: the item with id 'yo' does not exist."


@pytest.mark.parametrize(
    ("target", "bytes_per_ms"), [("audio/pcm", 48), ("audio/pcma", 8), ("audio/pcmu", 8)]
)
def test_a_retrieved_item_has_its_whole_sound(target: str, bytes_per_ms: int) -> None:
    """Row E20: however long it is, in the format of the session, as if it had been encoded in one go."""
    audio_format = {"type": target} | ({"rate": 24000} if target == "audio/pcm" else {})
    desk = Desk(audio={"output": {"format": audio_format}})
    command = desk.respond()
    sound = bytes(range(256)) * 250  # 8 s of every code
    desk.engine(ResponseSpeech(command.response_id, command.generation, "Hm.", sound))
    item_id = desk.finish(command)[-1]["response"]["output"][0]["id"]
    (event,) = desk.send("conversation.item.retrieve", item_id=item_id)
    audio = base64.b64decode(event["item"]["content"][0]["audio"], validate=True)
    assert len(audio) == 8000 * bytes_per_ms
    whole = convert(sound, "audio/pcmu", target)  # type: ignore[arg-type]
    if target == "audio/pcm":  # the resampler rounds with a dither
        assert np.max(np.abs(np.frombuffer(audio, "<i2") - np.frombuffer(whole, "<i2").astype(int))) <= 2
    else:
        assert audio == whole


def told_item(desk: Desk, text: str, ms: int) -> str:
    """Have the agent say something; return its item's id."""
    command = desk.respond()
    desk.say(command, text, ms=ms)
    item_id: str = desk.finish(command)[-1]["response"]["output"][0]["id"]
    return item_id


def test_a_truncation_past_the_end_is_cut_there_and_takes_nothing_away() -> None:
    """Row E21: clients count what they played a little differently."""
    desk = Desk()
    item_id = told_item(desk, "One two three four.", 2000)
    (event,) = desk.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=2001)
    assert (event["type"], event["audio_end_ms"]) == ("conversation.item.truncated", 2000)
    (event,) = desk.send("conversation.item.retrieve", item_id=item_id)
    assert event["item"]["content"][0]["transcript"] == "One two three four."
    assert len(base64.b64decode(event["item"]["content"][0]["audio"])) == 2000 * 48


def test_a_strict_node_refuses_it_in_the_hosted_words() -> None:
    """Row E21."""
    desk = Desk(rules=ConversationRules(strict_truncation=True))
    item_id = told_item(desk, "One two three four.", 2000)
    truncate = {"item_id": item_id, "content_index": 0}
    error = desk.error("conversation.item.truncate", **truncate, audio_end_ms=2001, event_id="t1")
    assert error["message"] == "Audio content of 2000ms is already shorter than 2001ms"
    assert (error["code"], error["param"], error["event_id"]) == ("invalid_value", "audio_end_ms", "t1")
    (event,) = desk.send("conversation.item.truncate", **truncate, audio_end_ms=2000)
    assert event["audio_end_ms"] == 2000
    # What was cut already may be cut again, as agents do after our own truncation.
    desk.send("conversation.item.truncate", **truncate, audio_end_ms=1000)
    (event,) = desk.send("conversation.item.truncate", **truncate, audio_end_ms=1500)
    assert event["audio_end_ms"] == 1000


def test_an_answer_that_a_client_wrote_loses_the_words_of_the_sound_it_loses() -> None:
    """Row E21, of an item that the app brought with it."""
    desk = Desk()
    sound = base64.b64encode(b"\0\0" * 48000).decode()
    part = {"type": "output_audio", "audio": sound, "transcript": "One two three four."}
    desk.send(
        "conversation.item.create",
        item={"type": "message", "role": "assistant", "id": "a", "content": [part]},
    )
    desk.send("conversation.item.truncate", item_id="a", content_index=0, audio_end_ms=1000)
    (event,) = desk.send("conversation.item.retrieve", item_id="a")
    assert event["item"]["content"][0]["transcript"] == "One two"


def test_truncate() -> None:
    """Row E21."""
    desk = Desk()
    item_id = told_item(desk, "One two three four.", 2000)
    assert desk.error("conversation.item.truncate", item_id="x", content_index=0, audio_end_ms=0)["code"] == (
        "item_truncate_invalid_item_id"
    )
    wrong = desk.error("conversation.item.truncate", item_id=item_id, content_index=1, audio_end_ms=0)
    assert wrong["param"] == "content_index"
    (event,) = desk.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=1000)
    assert event["audio_end_ms"] == 1000
    # Once more is no error, and does not make it longer.
    (event,) = desk.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=1500)
    assert event["audio_end_ms"] == 1000
    (event,) = desk.send("conversation.item.retrieve", item_id=item_id)
    assert event["item"]["content"][0]["transcript"] == "One two"
    desk.send("conversation.item.create", item=MESSAGE | {"id": "u"})
    assert (
        desk.error("conversation.item.truncate", item_id="u", content_index=0, audio_end_ms=0)["param"]
        == "item_id"
    )


def test_a_full_conversation_takes_no_item_until_one_is_deleted() -> None:
    desk = Desk()
    for number in range(MAX_ITEMS):
        desk.session.conversation.append(Item(f"item_{number}", "message", role="user"))
    error = desk.error("conversation.item.create", item=MESSAGE)
    assert (error["code"], error["param"]) == ("conversation_full", "item")
    desk.send("conversation.item.delete", item_id="item_0")
    assert types(desk.send("conversation.item.create", item=MESSAGE))[0] == "conversation.item.added"
