"""Whole calls: the session, its runner and the scripted engine, on a clock that tests turn by hand."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from offhook.realtime.engines.scripted import Call, Reply, Script, Turn
from testbed.by_hand import SPOKEN, TRANSCRIBED, Caller, assert_complete, send


async def test_greeting_before_any_speech() -> None:
    """Rows O01, O03, O04, O05, E13."""
    phone = await Caller(Script(greeting="Welcome.")).start()
    client, attachment = phone.attach()
    send(attachment, "response.create")
    assert client.types == ["session.created", *SPOKEN]
    assert len(phone.speaker.queue) == len("Welcome.") * 60 * 8
    phone.wait(1000)
    assert client.types[-1] == "output_audio_buffer.stopped"
    assert client.types.count("output_audio_buffer.started") == 1
    assert_complete(client.events)


async def test_spoken_turn() -> None:
    """Row O02, with the transcript told because it was asked for (O06, V05)."""
    phone = await Caller(Script(turns=(Turn("Hello there.", (Reply("Hi."),)),)), accept=TRANSCRIBED).start()
    client, _ = phone.attach()
    phone.wait(400)
    phone.say(600)
    phone.wait(1500)
    assert client.types == [
        "session.created",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        *SPOKEN[:2],
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        *SPOKEN[2:],
        "output_audio_buffer.stopped",
    ]
    started, stopped, committed, added = client.events[1:5]
    assert {e["item_id"] for e in (started, stopped, committed)} == {added["item"]["id"]}
    # Speech from 400 to 1000 ms; 300 ms of padding before, 500 ms of silence behind (row O17).
    assert started["audio_start_ms"] == 100
    assert stopped["audio_end_ms"] == 1500
    completed = client.of("conversation.item.input_audio_transcription.completed")[0]
    assert completed["transcript"] == "Hello there."
    assert completed["usage"] == {"type": "duration", "seconds": pytest.approx(1.1, abs=0.05)}
    assert_complete(client.events)
    turn = next(note for note in phone.notes if note.kind == "turn")
    assert turn.details["committed_ms"] == pytest.approx(500, abs=1)
    assert turn.details["first_audio_ms"] == pytest.approx(500, abs=1)
    assert turn.details["first_played_ms"] == pytest.approx(520, abs=1)


async def test_the_engine_is_asked_while_the_caller_is_still_silent() -> None:
    """A transcription that takes 250 ms hides inside the 500 ms of silence."""
    phone = await Caller(Script(turns=(Turn("Hello.", (Reply("Hi."),), hear_delay_ms=250),))).start()
    phone.attach()
    phone.say()
    phone.wait(1000)
    turn = next(note for note in phone.notes if note.kind == "turn")
    assert turn.details["first_audio_ms"] == pytest.approx(500, abs=1)


async def test_a_slow_transcription_holds_the_engine_back_but_not_response_created() -> None:
    phone = await Caller(Script(turns=(Turn("Hello.", (Reply("Hi."),), hear_delay_ms=900),))).start()
    client, _ = phone.attach()
    phone.say()
    phone.wait(600)
    assert client.types[-2:] == ["response.created", "rate_limits.updated"]
    phone.wait(800)
    assert client.of("response.done")[0]["response"]["status"] == "completed"


async def test_tool_call_round_trip() -> None:
    """Rows O07, O08, V04, V11."""
    script = Script(
        turns=(
            Turn(
                "What is the weather?",
                (
                    Reply("One moment.", calls=(Call("weather", '{"city":"Rome"}'), Call("clock"))),
                    Reply("It is sunny."),
                ),
            ),
        )
    )
    phone = await Caller(script).start()
    client, attachment = phone.attach()
    phone.say()
    phone.wait(600)
    done = client.of("response.done")[0]["response"]
    assert [item["type"] for item in done["output"]] == ["message", "function_call", "function_call"]
    calls = [
        e["item"] for e in client.of("response.output_item.done") if e["item"]["type"] == "function_call"
    ]
    assert [(c["name"], c["arguments"], c["status"]) for c in calls] == [
        ("weather", '{"city":"Rome"}', "completed"),
        ("clock", "{}", "completed"),
    ]
    arguments = client.of("response.function_call_arguments.done")
    assert [e["name"] for e in arguments] == ["weather", "clock"]
    own = [
        e["type"] for e in client.events if e.get("item_id", e.get("item", {}).get("id")) == calls[0]["id"]
    ]
    assert own == [
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
    ]
    client.take()
    for call in calls:
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"ok":true}'}
        send(attachment, "conversation.item.create", item=output)
    send(attachment, "response.create", event_id="agents_py_response_create_2")
    assert client.types[:5] == ["conversation.item.added", "conversation.item.done"] * 2 + [
        "response.created"
    ]
    assert (
        client.of("response.done")[0]["response"]["output"][0]["content"][0]["transcript"] == "It is sunny."
    )
    # The follow-up is said after what is still being said.
    phone.wait(2000)
    sound = [
        (e["type"], e["response_id"]) for e in client.events if e["type"].startswith("output_audio_buffer")
    ]
    first, second = done["id"], client.of("response.done")[0]["response"]["id"]
    assert sound == [
        ("output_audio_buffer.stopped", first),
        ("output_audio_buffer.started", second),
        ("output_audio_buffer.stopped", second),
    ]


LONG = "First we look at this. Then we look at that. Finally we are done with it."


async def test_barge_in_while_the_answer_is_being_made() -> None:
    """Rows O09, O11."""
    script = Script(
        turns=(Turn("Tell me.", (Reply(LONG, sentence_ms=1500),)), Turn("Stop.", (Reply("Okay."),)))
    )
    phone = await Caller(script).start()
    client, _ = phone.attach()
    phone.say()
    phone.wait(500 + 1000)
    client.take()
    phone.say(100)
    assert client.types == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert phone.speaker.queue == b""
    done = client.events[-1]["response"]
    assert done["status"] == "cancelled"
    assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert done["output"][0]["status"] == "incomplete"
    # 80 ms of speech are needed to be sure; all of them were heard.
    heard_ms = client.events[2]["audio_end_ms"]
    assert heard_ms == phone.speaker.played_samples // 8 == pytest.approx(1080, abs=20)
    # 22 characters in 1320 ms: the words whose sound was over by then.
    assert done["output"][0]["content"][0]["transcript"] == "First we look at"
    phone.say(300)
    phone.wait(3000)
    assert client.of("response.done")[-1]["response"]["output"][0]["content"][0]["transcript"] == "Okay."
    assert len(client.of("response.done")) == 2


async def test_barge_in_after_generation_while_it_is_still_played() -> None:
    """Row O09: no second response.done."""
    phone = await Caller(
        Script(turns=(Turn("Tell me.", (Reply(LONG),)), Turn("Stop.", (Reply("Okay."),))))
    ).start()
    client, attachment = phone.attach()
    phone.say()
    phone.wait(500 + 2000)
    assert len(client.of("response.done")) == 1
    item_id = client.of("response.done")[0]["response"]["output"][0]["id"]
    client.take()
    phone.say(100)
    assert client.types == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
    ]
    heard_ms = client.events[2]["audio_end_ms"]
    assert heard_ms == pytest.approx(2080, abs=20)
    # The client does what it always does, and nothing is an error (rows E20, E21).
    client.take()
    send(attachment, "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=9000)
    send(attachment, "conversation.item.retrieve", item_id=item_id)
    while len(client.types) < 2:  # the sound is encoded piece by piece
        await asyncio.sleep(0)
    assert client.types == ["conversation.item.truncated", "conversation.item.retrieved"]
    assert client.events[0]["audio_end_ms"] == heard_ms
    content = client.events[1]["item"]["content"][0]
    assert content["transcript"] == "First we look at this. Then we look"
    # Audio comes in the format that the session names, audio/pcm at 24 kHz.
    assert len(base64.b64decode(content["audio"])) / 48 == pytest.approx(heard_ms, abs=1)


async def test_the_interrupted_answer_that_nobody_heard_is_unsaid() -> None:
    """Two answers wait to be played; the second was never begun."""
    script = Script(
        turns=(Turn("Go.", (Reply(LONG), Reply("More of it."))), Turn("Stop.", (Reply("Okay."),)))
    )
    phone = await Caller(script).start()
    client, attachment = phone.attach()
    phone.say()
    phone.wait(600)
    send(attachment, "response.create")
    second = client.of("response.done")[1]["response"]["output"][0]["id"]
    client.take()
    phone.say(100)
    assert client.types.count("output_audio_buffer.cleared") == 1
    assert client.of("conversation.item.truncated")[1] == {
        "type": "conversation.item.truncated",
        "event_id": client.of("conversation.item.truncated")[1]["event_id"],
        "item_id": second,
        "content_index": 0,
        "audio_end_ms": 0,
    }
    item = phone.session.conversation.get(second)
    assert item is not None
    assert item.transcript == ""


async def test_no_interruption_when_the_app_forbids_it() -> None:
    """Row O10."""
    accept = {"audio": {"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}}}
    script = Script(turns=(Turn("Tell me.", (Reply(LONG, sentence_ms=1500),)),))
    phone = await Caller(script, accept=accept).start()
    client, _ = phone.attach()
    phone.say()
    phone.wait(900)
    client.take()
    phone.say(300)
    phone.wait(700)
    turn = [kind for kind in client.types if not kind.startswith("response.output_audio_transcript")]
    assert turn == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    phone.wait(6000)
    assert [e["response"]["status"] for e in client.of("response.done")] == ["completed"]
    assert "output_audio_buffer.cleared" not in client.types


async def test_noise_is_not_answered() -> None:
    phone = await Caller(Script(turns=(Turn("", (Reply("Pardon?"),)),))).start()
    client, _ = phone.attach()
    phone.say(200)
    phone.wait(1500)
    assert len(client.of("input_audio_buffer.committed")) == 1
    assert "response.created" not in client.types


async def test_noise_known_late_cancels_the_response() -> None:
    phone = await Caller(Script(turns=(Turn("", (Reply("Pardon?"),), hear_delay_ms=800),))).start()
    client, _ = phone.attach()
    phone.say(200)
    phone.wait(1500)
    assert client.of("response.done")[0]["response"]["status"] == "cancelled"
    assert_complete(client.events)


async def test_noise_that_silenced_the_agent_is_answered() -> None:
    """Silence after an interruption would leave the caller waiting."""
    phone = await Caller(Script(greeting=LONG, turns=(Turn("", (Reply("Pardon?"),)),))).start()
    client, attachment = phone.attach()
    send(attachment, "response.create")
    phone.wait(500)
    phone.say(200)
    phone.wait(1500)
    assert client.of("response.done")[1]["response"]["output"][0]["content"][0]["transcript"] == "Pardon?"


@pytest.mark.parametrize("status", ["failed", "incomplete"])
async def test_responses_that_end_badly(status: Any) -> None:
    """Rows O11, O20."""
    phone = await Caller(Script(turns=(Turn("Go.", (Reply("I was just", status=status),)),))).start()
    client, _ = phone.attach()
    phone.say()
    phone.wait(1500)
    done = client.of("response.done")[0]["response"]
    assert done["status"] == status
    assert done["output"][0]["status"] == "incomplete"
    if status == "failed":
        assert done["status_details"]["error"]["message"] == "the script says so"
    else:
        assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert_complete(client.events)


async def test_the_engine_dies() -> None:
    phone = await Caller(
        Script(turns=(Turn("Go.", (Reply("Never said.", delay_ms=5000),)),), dies_after_ms=1500)
    ).start()
    client, attachment = phone.attach()
    phone.say()
    phone.wait(2000)
    assert client.of("response.done")[0]["response"]["status"] == "failed"
    send(attachment, "response.create")
    assert client.of("response.done")[1]["response"]["status_details"]["error"]["code"] == "engine_failed"
    assert_complete(client.events)


async def test_the_talking_engine_talks_until_it_is_stopped() -> None:
    phone = await Caller(Script(talk=True)).start()
    client, attachment = phone.attach()
    send(attachment, "response.create")
    phone.wait(20_000)
    assert phone.speaker.played_samples == 20_000 * 8
    send(attachment, "output_audio_buffer.clear")
    assert client.of("response.done")[0]["response"]["status_details"]["reason"] == "client_cancelled"
    phone.wait(5000)
    assert phone.speaker.queue == b""
