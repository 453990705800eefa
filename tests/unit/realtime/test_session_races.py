"""What clients and the engine do at a moment when nobody expects it; most of it the state machine found."""

from __future__ import annotations

from typing import Any

import pytest

from offhook.realtime.engine import EngineFailed, Respond, Transcribe, Transcribed, VoiceActivity
from offhook.realtime.session import SessionClosed
from testbed.by_hand import TRANSCRIBED, Desk, types

HELLO: dict[str, Any] = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "Hello"}],
}


def test_nothing_is_said_after_the_end() -> None:
    """Rows S16, O12: whatever still comes in."""
    desk = Desk()
    desk.session.close("hangup", desk.now)
    desk.drain()
    assert desk.commands(SessionClosed)
    for kind in ("response.create", "nonsense", "input_audio_buffer.clear"):
        assert desk.send(kind) == []
    desk.session.attach(2)
    desk.session.receive_digit("5", desk.now, 1_700_000_000)
    assert desk.engine(VoiceActivity(0.9, 1000.0), EngineFailed("gone")) == []
    assert desk.session.outputs() == []
    assert desk.session.next_timer() is None


def test_a_session_that_only_waits_for_its_last_response_ends_with_it() -> None:
    """Row S17: cancelled by a client, too."""
    desk = Desk()
    desk.respond()
    desk.session.close("hangup", desk.now)
    desk.drain()
    assert not desk.commands(SessionClosed)
    assert types(desk.send("response.cancel")) == ["response.done"]
    assert desk.commands(SessionClosed)


def test_an_id_that_was_promised_to_the_callers_speech_is_taken() -> None:
    """Rows O02, E18: or its own item would have no place."""
    desk = Desk()
    (started,) = desk.hear(200, 0.9)
    error = desk.error("conversation.item.create", item=HELLO | {"id": started["item_id"]})
    assert error["code"] == "item_create_duplicate_item_id"
    events = desk.hear(800)
    assert "conversation.item.added" in types(events)
    assert desk.session.conversation.last_id == started["item_id"]


@pytest.mark.parametrize("forgets", ["input_audio_buffer.clear", "session.update"])
def test_it_is_free_again_when_the_speech_will_be_no_item(forgets: str) -> None:
    desk = Desk()
    (started,) = desk.hear(200, 0.9)
    if forgets == "session.update":
        desk.send(forgets, session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
    else:
        desk.send(forgets)
    events = desk.send("conversation.item.create", item=HELLO | {"id": started["item_id"]})
    assert types(events) == ["conversation.item.added", "conversation.item.done"]


@pytest.mark.parametrize("conversation", ["auto", "none"])
def test_the_id_of_an_item_in_the_making_is_taken_though_it_is_deleted(conversation: str) -> None:
    """Row V14: its `done` are still to come."""
    desk = Desk()
    command = desk.respond(conversation=conversation)
    item_id = next(e for e in desk.say(command, "Hello.") if "item" in e)["item"]["id"]
    if conversation == "auto":
        desk.send("conversation.item.delete", item_id=item_id)
    error = desk.error("conversation.item.create", item=HELLO | {"id": item_id})
    assert error["code"] == "item_create_duplicate_item_id"
    desk.finish(command)
    assert types(desk.send("conversation.item.create", item=HELLO | {"id": item_id})) == [
        "conversation.item.added",
        "conversation.item.done",
    ]


def test_an_item_is_done_behind_what_is_before_it_then() -> None:
    """Rows O03, V13: others came and went while it was made."""
    desk = Desk()
    desk.send("conversation.item.create", item=HELLO | {"id": "first"})
    command = desk.respond()
    desk.say(command, "Hello.")
    desk.send("conversation.item.create", item=HELLO | {"id": "between"}, previous_item_id="first")
    done = next(e for e in desk.finish(command) if e["type"] == "conversation.item.done")
    assert done["previous_item_id"] == "between"

    command = desk.respond()
    made = next(e for e in desk.say(command, "Again.") if e["type"] == "conversation.item.added")
    desk.send("conversation.item.delete", item_id=made["previous_item_id"])
    done = next(e for e in desk.finish(command) if e["type"] == "conversation.item.done")
    assert done["previous_item_id"] == "between"


@pytest.mark.parametrize("kind", ["input_audio_buffer.commit", "input_audio_buffer.clear"])
def test_an_ear_that_is_late_starts_no_turn_from_what_the_client_took_away(kind: str) -> None:
    """Rows E24, E25, O02: an item without sound would come of it, and an answer to nothing."""
    desk = Desk()
    for _ in range(20):
        desk.now += 0.02
        desk.session.receive_audio(b"\xff" * 160, desk.now)
    desk.send(kind)
    late = [VoiceActivity(0.9, float(end_ms)) for end_ms in range(20, 420, 20)]
    assert desk.engine(*late) == []
    desk.heard_ms = 400.0
    (started,) = desk.hear(200, 0.9)
    assert started["audio_start_ms"] == 400


def test_a_custom_voice_is_a_string_in_a_response() -> None:
    """Row V09: in the session it is an object, but the SDKs type a response's voice as a string."""
    desk = Desk(audio={"output": {"voice": {"id": "voice_1"}}})
    created, _ = desk.send("response.create")
    assert created["response"]["audio"]["output"]["voice"] == "voice_1"
    assert desk.commands(Respond)[0].voice == "voice_1"
    assert desk.session.describe()["audio"]["output"]["voice"] == {"id": "voice_1"}


def test_a_later_cut_makes_nothing_longer() -> None:
    """Row E21: the client truncated what still sounded; then the caller interrupts."""
    desk = Desk()
    command = desk.respond()
    added = next(e for e in desk.say(command, "One two three four five.", 2000) if "item" in e)
    desk.finish(command)
    desk.session.playout_progress(12_000, desk.now)
    item_id = added["item"]["id"]
    desk.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=400)
    words = desk.session.conversation.get(item_id)
    assert words is not None
    before = words.transcript
    events = desk.hear(200, 0.9)
    (truncated,) = (e for e in events if e["type"] == "conversation.item.truncated")
    assert truncated["audio_end_ms"] == 400
    assert words.transcript == before


def test_words_of_an_item_that_was_deleted_are_not_those_of_another_with_its_id() -> None:
    """Row E22: they come late, and the client has made its item anew."""
    desk = Desk(**TRANSCRIBED)
    sound = HELLO | {"id": "mine", "content": [{"type": "input_audio", "audio": "AAAAAAAA"}]}
    asked = []
    for again in (False, True):
        if again:
            desk.send("conversation.item.delete", item_id="mine")
        desk.send("conversation.item.create", item=sound)
        asked += desk.commands(Transcribe)
    assert desk.engine(Transcribed("mine", asked[0].revision, "Old words.", 1.0)) == []
    events = desk.engine(Transcribed("mine", asked[1].revision, "New words.", 1.0))
    assert [event.get("transcript") for event in events][-1:] == ["New words."]


def test_a_silence_without_sound_does_not_end_before_it_began() -> None:
    """Row O14: a client that sends nothing while it waits."""
    turn_detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    desk = Desk(sip=False, audio={"input": {"turn_detection": turn_detection}})
    command = desk.respond()
    desk.say(command, "Are you there?", 1000)
    desk.finish(command)
    desk.now = desk.session.next_timer() or 0.0
    desk.session.handle_timer(desk.now)
    (timed_out,) = (e for e in desk.drain() if e["type"] == "input_audio_buffer.timeout_triggered")
    assert timed_out["audio_start_ms"] <= timed_out["audio_end_ms"]


def test_an_item_with_the_id_of_one_that_still_sounds_is_not_cut_with_it() -> None:
    """Rows E18, O09: the client deleted what was said, and has put an item of its own in its place."""
    desk = Desk()
    command = desk.respond()
    made = next(e for e in desk.say(command, "Hello there.", 2000) if "item" in e)["item"]["id"]
    desk.finish(command)
    desk.send("conversation.item.delete", item_id=made)
    desk.send("conversation.item.create", item=HELLO | {"id": made})
    events = desk.hear(200, 0.9)
    assert "output_audio_buffer.cleared" in types(events)
    assert "conversation.item.truncated" not in types(events)
