"""Whole calls: the session, its runner and the scripted engine, on a clock that tests turn by hand."""

from __future__ import annotations

import pytest

from offhook.realtime.engines.scripted import Reply, Script, Turn
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
    phone = await Caller(
        Script(greeting="First we look at this. Then at that.", turns=(Turn("", (Reply("Pardon?"),)),))
    ).start()
    client, attachment = phone.attach()
    send(attachment, "response.create")
    phone.wait(500)
    phone.say(200)
    phone.wait(1500)
    assert client.of("response.done")[1]["response"]["output"][0]["content"][0]["transcript"] == "Pardon?"


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
