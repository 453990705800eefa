"""Row G16: what of a long conversation goes to the engine, as `truncation` says, with one that the test plays."""

from __future__ import annotations

from typing import Any

import pytest

from offhook.realtime.conversation import ConversationRules
from offhook.realtime.engine import Respond
from offhook.realtime.session import SessionNote
from testbed.by_hand import Desk, types

WORDS = "x" * 384
"96 tokens of four letters, and 4 for the item: 100."


def desk(context_tokens: int | None = None, **accept: Any) -> Desk:
    """A session with 1,000 tokens of instructions and answer besides its conversation."""
    rules = ConversationRules(context_tokens=context_tokens)
    return Desk(rules=rules, instructions="y" * 3600, max_output_tokens=100, **accept)


def add(desk: Desk, *names: str, **item: Any) -> None:
    for name in names:
        message = {"role": "user", "content": [{"type": "input_text", "text": WORDS}]}
        given = {"type": "message", "id": name} | (item or message)
        assert types(desk.send("conversation.item.create", item=given))[-1] == "conversation.item.done"


def sent(desk: Desk, **response: Any) -> list[str]:
    """Return the ids of what the engine gets for a response, which ends at once."""
    command: Respond = desk.respond(**response)
    desk.finish(command)
    return [item["id"] for item in command.items]


def test_auto_leaves_out_as_many_of_the_oldest_as_it_takes() -> None:
    talk = desk(1500)
    add(talk, *"abcde")
    assert sent(talk) == list("abcde")
    add(talk, "f")
    assert sent(talk) == list("bcdef")
    add(talk, "g")
    assert sent(talk) == list("cdefg")


def test_what_is_left_out_stays_out_and_can_still_be_retrieved() -> None:
    talk = desk(1500)
    add(talk, *"abcdef")
    command = talk.respond()
    assert [note.title for note in talk.commands(SessionNote) if note.kind == "session"] == [
        "the conversation is too long: its 1 oldest items are left out from now on"
    ]
    talk.finish(command)
    for name in "cdef":
        talk.send("conversation.item.delete", item_id=name)
    assert sent(talk) == ["b"]
    (event,) = talk.send("conversation.item.retrieve", item_id="a")
    assert event["item"]["content"][0]["text"] == WORDS
    reference = [{"type": "item_reference", "id": "a"}]
    assert sent(talk, conversation="none", input=reference) == ["a"]


def test_disabled_fails_the_response_and_leaves_nothing_out() -> None:
    talk = desk(1500, truncation="disabled")
    add(talk, *"abcdef")
    events = talk.send("response.create")
    assert types(events) == ["response.created", "rate_limits.updated", "response.done"]
    failed = events[-1]["response"]
    assert failed["status"] == "failed"
    error = failed["status_details"]["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "context_length_exceeded")
    assert "500 tokens" in error["message"]
    assert talk.commands(Respond) == []
    # The app makes room, and the session goes on.
    talk.send("conversation.item.delete", item_id="b")
    assert sent(talk) == list("acdef")


def test_a_retention_ratio_makes_room_for_turns_to_come() -> None:
    talk = desk(2000, truncation={"type": "retention_ratio", "retention_ratio": 0.6})
    add(talk, *"abcdefghij")
    assert sent(talk) == list("abcdefghij")
    add(talk, "k")
    assert sent(talk) == list("fghijk")
    add(talk, *"lmno")
    assert sent(talk) == list("fghijklmno")
    add(talk, "p")
    assert sent(talk) == list("klmnop")


@pytest.mark.parametrize("context_tokens", [None, 32_768])
def test_post_instructions_count_whatever_the_engine_could_take(context_tokens: int | None) -> None:
    policy = {
        "type": "retention_ratio",
        "retention_ratio": 1.0,
        "token_limits": {"post_instructions": 300},
    }
    talk = desk(context_tokens, truncation=policy)
    add(talk, *"abcd")
    assert sent(talk) == list("bcd")


def test_post_instructions_do_not_make_the_engine_larger() -> None:
    policy = {
        "type": "retention_ratio",
        "retention_ratio": 0.8,
        "token_limits": {"post_instructions": 5000},
    }
    talk = desk(1500, truncation=policy)
    add(talk, *"abcdef")
    assert sent(talk) == list("cdef")


def test_a_policy_can_be_changed_and_counts_for_the_next_response() -> None:
    """Rows E01, E09."""
    talk = desk(1500, truncation="disabled")
    add(talk, *"abcdef")
    assert talk.send("response.create")[-1]["response"]["status"] == "failed"
    (updated,) = talk.send("session.update", session={"type": "realtime", "truncation": "auto"})
    assert updated["session"]["truncation"] == "auto"
    assert sent(talk) == list("bcdef")


def test_tools_and_a_longer_answer_take_room_from_the_conversation() -> None:
    talk = desk(1500)
    add(talk, *"abcde")
    assert sent(talk, max_output_tokens=200) == list("bcde")
    tool = {"type": "function", "name": "f", "description": "z" * 400}
    assert sent(talk, tools=[tool]) == list("cde")


def test_a_result_goes_out_with_its_call() -> None:
    talk = desk(1500)
    add(talk, "a", type="function_call", name="f", call_id="call_1", arguments="x" * 383)
    add(talk, "b", type="function_call_output", call_id="call_1", output="x" * 384)
    add(talk, *"cdefg")
    assert sent(talk) == list("cdefg")
    talk = desk(1500)
    add(talk, "a", type="function_call", name="f", call_id="call_1", arguments="x" * 383)
    add(talk, "b", type="function_call_output", call_id="call_1", output="x" * 384)
    add(talk, *"cdef")
    assert sent(talk) == list("cdef")


def test_the_newest_item_is_always_sent() -> None:
    talk = desk(1020)
    add(talk, *"ab")
    assert sent(talk) == ["b"]


def test_the_newest_item_is_sent_also_when_it_had_been_left_out() -> None:
    talk = desk(1020)
    add(talk, *"abc")
    assert sent(talk) == ["c"]
    talk.send("conversation.item.delete", item_id="c")
    assert sent(talk) == ["b"]


def test_an_engine_without_a_bound_gets_all() -> None:
    talk = desk(None)
    add(talk, *(f"item_{number}" for number in range(400)))
    assert len(sent(talk)) == 400


def test_letters_of_several_bytes_count_as_such() -> None:
    talk = desk(1500)
    add(talk, "a", role="user", content=[{"type": "input_text", "text": "\u8a9e" * 528}])
    assert sent(talk) == ["a"]
    add(talk, "b")
    assert sent(talk) == ["a", "b"]
    add(talk, "c")
    assert sent(talk) == ["b", "c"]
