"""
What the caller says, and what the client does with it (API rows E23 to E25, O02, O14 to O17).

First on a clock that the test turns by hand, then by real phones and openai-python on a real node.
"""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from offhook.audio import tones
from offhook.realtime.engine import Respond, Transcribe, Transcribed
from offhook.realtime.engines.scripted import Reply, Script, Turn
from testbed import DeveloperApp, Phone, PhoneCall
from testbed.attended import attended
from testbed.by_hand import TRANSCRIBED, Caller, Desk, send, types
from testbed.script import SHORT
from testbed.waiting import PATIENCE_S

TURN = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"
KEY = "input_audio_buffer.dtmf_event_received"


def hearing(turn_detection: Any, **more: Any) -> dict[str, Any]:
    return {"audio": {"input": {"turn_detection": turn_detection, **more}}}


def vad(**fields: Any) -> dict[str, Any]:
    return {"type": "server_vad", **fields}


# By hand.


async def test_transcripts_are_not_told_unless_asked_for() -> None:
    phone = await Caller(Script(turns=(Turn("Hello there.", (Reply("Hi."),)),))).start()
    client, _ = phone.attach()
    phone.say()
    phone.wait(1000)
    assert not [kind for kind in client.types if "transcription" in kind]
    assert client.of("response.done")[0]["response"]["status"] == "completed"


async def test_a_pause_inside_a_sentence_is_one_turn() -> None:
    phone = await Caller(Script(turns=(Turn("One two.", (Reply("Three."),)),)), accept=TRANSCRIBED).start()
    client, _ = phone.attach()
    phone.say(400)
    phone.wait(300)
    phone.say(400)
    phone.wait(1000)
    assert len(client.of("input_audio_buffer.committed")) == 1
    completed = client.of("conversation.item.input_audio_transcription.completed")[0]
    assert completed["usage"]["seconds"] > 1.1


@pytest.mark.parametrize(("heard", "wait_ms"), [("I am done.", 500), ("I want to and", 4000)])
async def test_semantic_turns(heard: str, wait_ms: int) -> None:
    """Row G08."""
    accept = {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}
    phone = await Caller(Script(turns=(Turn(heard, (Reply("Okay."),)),)), accept=accept).start()
    client, _ = phone.attach()
    phone.say(600)
    phone.wait(wait_ms - 40)
    assert "input_audio_buffer.committed" not in client.types
    phone.wait(60)
    assert "input_audio_buffer.committed" in client.types


async def test_a_failed_transcription_is_told_and_answered() -> None:
    phone = await Caller(
        Script(turns=(Turn("x", (Reply("Pardon?"),), fails=True),)), accept=TRANSCRIBED
    ).start()
    client, _ = phone.attach()
    phone.say()
    phone.wait(1500)
    failed = client.of("conversation.item.input_audio_transcription.failed")[0]
    assert failed["error"]["message"] == "the script says so"
    assert client.of("response.done")[0]["response"]["status"] == "completed"


async def test_manual_turns() -> None:
    """Rows O15, E24."""
    accept = {"audio": {"input": {"turn_detection": None}}}
    phone = await Caller(Script(turns=(Turn("Hello.", (Reply("Hi."),)),)), accept=accept).start()
    client, attachment = phone.attach()
    send(attachment, "input_audio_buffer.commit")
    assert client.events[-1]["error"]["code"] == "input_audio_buffer_commit_empty"
    client.take()
    phone.say()
    phone.wait(2000)
    assert client.events == []
    send(attachment, "input_audio_buffer.commit")
    assert client.types == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    send(attachment, "response.create")
    assert client.of("response.done")[0]["response"]["output"][0]["content"][0]["transcript"] == "Hi."


async def test_idle_timeout() -> None:
    """Row O14: the timer runs from the end of the sound."""
    accept = {"audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}}}
    phone = await Caller(
        Script(greeting="Hello.", turns=(Turn("", (Reply("Still there?"),)),)), accept=accept
    ).start()
    client, attachment = phone.attach()
    phone.wait(8000)
    assert client.types == ["session.created"]
    send(attachment, "response.create")
    phone.wait(5200)
    assert "input_audio_buffer.timeout_triggered" not in client.types
    client.take()
    phone.wait(400)
    assert client.types[:5] == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    timeout = client.events[0]
    assert timeout["audio_end_ms"] - timeout["audio_start_ms"] == pytest.approx(5000, abs=40)


async def test_digits() -> None:
    """Rows O16, V07: three fields and no more."""
    phone = await Caller(Script()).start()
    client, _ = phone.attach()
    client.take()
    for digit in "1#":
        phone.runner.receive_digit(digit)
    assert client.events == [
        {"type": "input_audio_buffer.dtmf_event_received", "event": digit, "received_at": 1_700_001_000}
        for digit in "1#"
    ]


def test_a_phone_call_takes_no_audio_from_clients() -> None:
    """Row E23."""
    error = Desk().error("input_audio_buffer.append", event_id="a1", audio="AAAA")
    assert (error["type"], error["event_id"]) == ("invalid_request_error", "a1")


def test_clear_forgets_the_turn_that_is_under_way() -> None:
    """Row E25."""
    desk = Desk()
    assert types(desk.hear(300, 0.9)) == ["input_audio_buffer.speech_started"]
    assert types(desk.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    assert desk.hear(2000) == []


def test_a_commit_by_the_client_does_not_answer() -> None:
    """Row E24."""
    desk = Desk(audio={"input": {"turn_detection": None}})
    error = desk.error("input_audio_buffer.commit", event_id="c1")
    assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "c1")
    desk.hear(100)
    events = desk.send("input_audio_buffer.commit")
    assert types(events) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert desk.error("input_audio_buffer.commit")["code"] == "input_audio_buffer_commit_empty"


def test_create_response_false_only_commits() -> None:
    desk = Desk(audio={"input": {"turn_detection": {"type": "server_vad", "create_response": False}}})
    events = desk.hear(400, 0.9) + desk.hear(700)
    assert types(events)[-1] == "conversation.item.done"


def test_a_transcription_that_never_comes_does_not_hold_the_call() -> None:
    desk = Desk()
    desk.hear(400, 0.9)
    desk.hear(700)
    deadline = desk.session.next_timer()
    assert deadline is not None
    desk.session.handle_timer(deadline)
    desk.drain()
    (respond,) = desk.commands(Respond)
    assert respond.items[0]["content"][0]["transcript"] is None


def test_older_revisions_are_not_the_turns_words() -> None:
    desk = Desk(audio={"input": {"transcription": {"model": "whisper-1"}}})
    revisions: list[Transcribe] = []
    for ms, probability in ((400, 0.9), (300, 0.0), (400, 0.9), (700, 0.0)):
        for _ in range(ms // 20):
            desk.hear(20, probability)
            revisions += desk.commands(Transcribe)
    assert [transcribe.revision for transcribe in revisions] == [1, 2]
    assert len(revisions[0].audio) < len(revisions[1].audio)
    item_id = revisions[0].item_id
    assert desk.engine(Transcribed(item_id, 1, "Half.", 0.5)) == []
    events = desk.engine(Transcribed(item_id, 2, "Half and whole.", 1.2))
    assert events[-1]["transcript"] == "Half and whole."


@pytest.mark.parametrize(
    ("said_after_ms", "padding_ms", "start_ms"), [(1000, 300, 700), (1000, 0, 1000), (100, 300, 0)]
)
async def test_a_turns_times_count_from_the_calls_first_sound(
    said_after_ms: int, padding_ms: int, start_ms: int
) -> None:
    """Row O17: what is before the voice by the padding belongs to it, as far as there was a call then."""
    caller = await Caller(
        Script(turns=(Turn("Hello."),)),
        accept=hearing(vad(prefix_padding_ms=padding_ms, silence_duration_ms=200)),
    ).start()
    client, _ = caller.attach()
    caller.wait(said_after_ms)
    caller.say(500)
    caller.wait(1000)
    (started,) = client.of("input_audio_buffer.speech_started")
    (stopped,) = client.of("input_audio_buffer.speech_stopped")
    assert started["audio_start_ms"] == start_ms
    assert stopped["audio_end_ms"] == said_after_ms + 500 + 200


async def test_no_sound_belongs_to_two_turns() -> None:
    """Row O17: the padding of a turn ends where the turn before it ended."""
    caller = await Caller(
        Script(turns=(Turn("One.", ()), Turn("Two.", ()))),
        accept=hearing(vad(prefix_padding_ms=2000, silence_duration_ms=200)),
    ).start()
    client, _ = caller.attach()
    for _ in range(2):
        caller.say(400)
        caller.wait(400)
    first_end = client.of("input_audio_buffer.speech_stopped")[0]["audio_end_ms"]
    assert client.of("input_audio_buffer.speech_started")[1]["audio_start_ms"] == first_end == 600


async def test_the_client_may_end_a_turn_before_its_silence_does() -> None:
    """Row E24: a commit takes the turn that is under way, under the id that was told of it, and answers nothing."""
    caller = await Caller(
        Script(turns=(Turn("Hello."),)), accept=hearing(vad(silence_duration_ms=2000))
    ).start()
    client, attachment = caller.attach()
    caller.say(500)
    (started,) = client.of("input_audio_buffer.speech_started")
    client.take()
    send(attachment, "input_audio_buffer.commit")
    caller.wait(3000)
    assert client.types == TURN
    assert client.events[0]["item_id"] == started["item_id"]


async def test_a_detector_that_comes_in_mid_call_hears_from_then_on() -> None:
    """Row O15: what was said before, and not committed, starts no turn of its own."""
    caller = await Caller(Script(turns=(Turn("Hello.", ()),)), accept=hearing(None)).start()
    client, attachment = caller.attach()
    caller.say(400)
    caller.wait(1000)
    update = hearing(vad(silence_duration_ms=200))
    send(attachment, "session.update", session={"type": "realtime", **update})
    caller.wait(1000)
    assert client.types == ["session.created", "session.updated"]
    caller.say(400)
    caller.wait(400)
    speech = ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"]
    assert client.types[2:7] == [*speech, *TURN]
    assert client.events[2]["audio_start_ms"] == 2400 - 300


async def test_the_words_come_as_one_delta_and_then_whole() -> None:
    """Rows O06, V05. The embedded ear is of the kind of whisper-1: it tells a turn's words when it has them all."""
    include = {"include": ["item.input_audio_transcription.logprobs"]}
    caller = await Caller(Script(turns=(Turn("Hello there."),)), accept=TRANSCRIBED | include).start()
    client, _ = caller.attach()
    assert client.events[0]["session"]["include"] == include["include"]
    caller.say(500)
    caller.wait(1000)
    (delta,), (completed,) = client.of(DELTA), client.of(COMPLETED)
    (committed,) = client.of("input_audio_buffer.committed")
    assert delta["item_id"] == completed["item_id"] == committed["item_id"]
    assert delta["delta"] == completed["transcript"] == "Hello there."
    assert completed["usage"].keys() == {"type", "seconds"}
    assert "logprobs" not in delta.keys() | completed.keys()


async def test_words_are_told_from_when_they_are_asked_for() -> None:
    """Row A09: by the accept's session or by a later update, and until an update says null."""
    caller = await Caller(Script(turns=(Turn("Hello.", ()),))).start()
    client, attachment = caller.attach()
    for transcription, told in ((None, 0), ({"model": "whisper-1"}, 1), (None, 1)):
        update = {"type": "realtime", "audio": {"input": {"transcription": transcription}}}
        send(attachment, "session.update", session=update)
        caller.say(500)
        caller.wait(1000)
        assert len(client.of(COMPLETED)) == told
    assert len(client.of("input_audio_buffer.committed")) == 3


# By phone.


async def speak_out(call: PhoneCall, ms: int) -> None:
    """Speak, and return when that has been said."""
    over_at = call.speak(ms)
    while (left_s := over_at - time.monotonic()) > 0:
        await asyncio.sleep(left_s)


async def test_push_to_talk_on_a_phone_call(app: DeveloperApp, phone: Phone) -> None:
    """Rows O15, E24, E25: without turn detection the client says when a turn is over, and asks for the answer."""
    session = hearing(None, transcription={"model": "whisper-1"})
    async with attended(app, phone, **session) as on:
        sideband = on.sideband
        await speak_out(on.call, 1500)
        cleared_at = time.monotonic()
        await sideband.connection.input_audio_buffer.clear()
        await sideband.wait_for("input_audio_buffer.cleared")

        before = len(sideband.events)
        await speak_out(on.call, 500)
        await sideband.connection.input_audio_buffer.commit()
        heard = await sideband.wait_for(COMPLETED)
        assert [kind for kind in sideband.types[before:] if kind not in (DELTA, COMPLETED)] == TURN
        assert heard["transcript"] == "Good morning."
        # What was cleared is not in it.
        assert heard["usage"]["seconds"] < time.monotonic() - cleared_at + 0.5

        await sideband.connection.response.create()
        said = await sideband.wait_for("response.output_audio_transcript.done")
        assert said["transcript"] == SHORT
        await on.call.hears_sound(100)
        assert not sideband.of_type("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped")


async def test_a_client_takes_the_turns_over_in_mid_call(app: DeveloperApp, phone: Phone) -> None:
    """Rows O02, O15: the detector's turns have one id each; after an update that says null there are only commits."""
    async with attended(app, phone, **hearing(vad(silence_duration_ms=300, create_response=False))) as on:
        sideband = on.sideband
        before = len(sideband.events)
        on.call.speak(500)
        done = await sideband.wait_for("conversation.item.done")
        speech = ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"]
        assert sideband.types[before:] == [*speech, *TURN]
        ids = {event.get("item_id") or event["item"]["id"] for event in sideband.events[before:]}
        assert ids == {done["item"]["id"]}

        await sideband.connection.session.update(session={"type": "realtime", **hearing(None)})
        await sideband.wait_for("session.updated")
        before = len(sideband.events)
        await speak_out(on.call, 700)
        await sideband.connection.input_audio_buffer.commit()
        await sideband.wait_for("conversation.item.done", after=before)
        assert sideband.types[before:] == TURN


async def test_a_silent_caller_is_asked(app: DeveloperApp, phone: Phone) -> None:
    """Row O14, in real time: five seconds from when the greeting was heard."""
    async with attended(app, phone, **hearing(vad(idle_timeout_ms=5000))) as on:
        sideband = on.sideband
        await sideband.connection.response.create()
        heard = await sideband.wait_for("output_audio_buffer.stopped")
        before = sideband.events.index(heard) + 1
        timeout = await sideband.wait_for("input_audio_buffer.timeout_triggered")
        await sideband.wait_for("response.created", after=before)
        assert sideband.types[before : before + 5] == [
            "input_audio_buffer.timeout_triggered",
            *TURN,
            "response.created",
        ]
        assert timeout["audio_end_ms"] - timeout["audio_start_ms"] == pytest.approx(5000, abs=500)
        assert sideband.when(timeout) - sideband.when(heard) > 4.5
        assert timeout["item_id"] == sideband.events[before + 2]["item"]["id"]


async def test_keys_are_events_one_for_each(app: DeveloperApp, phone: Phone) -> None:
    """Rows O16, V07: each telephone-event is one press, however often its packets come."""
    async with attended(app, phone) as on:
        on.call.press("4711#*")
        await on.sideband.wait_for(KEY, lambda event: event["event"] == "*")
        events = on.sideband.of_type(KEY)
        assert "".join(event["event"] for event in events) == "4711#*"
        assert all(abs(event["received_at"] - time.time()) < PATIENCE_S for event in events)
        assert not on.sideband.of_type("input_audio_buffer.speech_started")


async def test_a_call_takes_no_sound_from_its_sidebands(app: DeveloperApp, phone: Phone) -> None:
    """Row E23: an append is refused by name, and what the caller says is heard as before."""
    async with attended(app, phone, **hearing(vad(silence_duration_ms=300))) as on:
        await on.sideband.connection.input_audio_buffer.append(audio="AAAA", event_id="sound_1")
        error = (await on.sideband.wait_for("error"))["error"]
        assert (error["type"], error["param"], error["event_id"]) == (
            "invalid_request_error",
            "type",
            "sound_1",
        )
        assert "input_audio_buffer.append" in error["message"]
        on.call.speak(500)
        await on.sideband.wait_for("response.done")


# Without a call.


async def next_of(connection: AsyncRealtimeConnection, *kinds: str) -> Any:
    while True:
        event = await connection.recv()
        if event.type in kinds:
            return event


async def test_openai_python_sends_commits_and_clears(app: DeveloperApp) -> None:
    """Rows E23, E24, E25: in manual mode an item is what was appended since the last commit or clear."""
    client: AsyncOpenAI = app.client
    pieces = [
        tones.tone(hz, 200, level=0.3, rate=24000).astype("<i2").tobytes() for hz in (300.0, 500.0, 700.0)
    ]
    cleared, *kept = pieces
    async with client.realtime.connect(model="gpt-realtime") as connection:
        await next_of(connection, "session.created")
        await connection.session.update(session={"type": "realtime", **hearing(None)})
        await next_of(connection, "session.updated")
        await connection.input_audio_buffer.append(audio=base64.b64encode(cleared).decode())
        await connection.input_audio_buffer.clear()
        await next_of(connection, "input_audio_buffer.cleared")
        await connection.input_audio_buffer.commit(event_id="empty")
        refused = await next_of(connection, "error", "input_audio_buffer.committed")
        assert (refused.error.code, refused.error.event_id) == ("input_audio_buffer_commit_empty", "empty")
        for piece in kept:
            await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        await connection.input_audio_buffer.commit()
        committed = await next_of(connection, "input_audio_buffer.committed", "error")
        await connection.conversation.item.retrieve(item_id=committed.item_id)
        item = (await next_of(connection, "conversation.item.retrieved")).item
        assert base64.b64decode(item.content[0].audio) == b"".join(kept)
        await connection.conversation.item.delete(item_id="item_none")
        # Nothing was answered by itself in between.
        assert (await next_of(connection, "error", "response.created")).type == "error"
