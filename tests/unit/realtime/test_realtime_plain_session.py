"""The pure session without a phone (rows E21, E23 to E25, O14): the client is the microphone and the loudspeaker."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import numpy as np
import orjson
import pytest

from offhook.audio import g711, tones
from offhook.realtime.appended_audio import AppendedAudio
from offhook.realtime.engine import (
    CancelResponse,
    EngineFailed,
    Respond,
    ResponseFinished,
    ResponseSpeech,
    Transcribe,
    Transcribed,
    VoiceActivity,
)
from offhook.realtime.session import HearAudio, PlayAudio, ServerEvent, Session, SessionClosed
from offhook.realtime.session_config import parse_accept
from offhook.realtime.sideband_audio import common_format
from testbed.by_hand import check

TONE = {
    "audio/pcm": tones.tone(300.0, 1000, level=0.3, rate=24000).astype("<i2").tobytes(),
    "audio/pcmu": g711.encode(tones.tone(300.0, 1000, level=0.3), "PCMU"),
    "audio/pcma": g711.encode(tones.tone(300.0, 1000, level=0.3), "PCMA"),
}
MANUAL = {"audio": {"input": {"turn_detection": None}}}


class Client:
    """A session with one client and an engine that the test plays. `heard` is what the engine was given."""

    def __init__(self, *, max_duration_s: float = 3600.0, **update: Any) -> None:
        counter = itertools.count(1)
        self.session = Session(
            parse_accept({"type": "realtime"}),
            session_id="sess_1",
            audio_format="audio/pcm",
            new_id=lambda prefix: f"{prefix}_{next(counter):04}",
            sip=False,
            max_duration_s=max_duration_s,
        )
        self.now = 10.0
        self.heard = b""
        self.heard_ms = 0.0
        self.outputs: list[Any] = []
        self.session.start(self.now, 1_700_000_000.0)
        self.session.attach(1)
        (created,) = self.drain()
        assert created["type"] == "session.created"
        if update:
            self.update(**update)

    def drain(self) -> list[dict[str, Any]]:
        self.outputs = self.session.outputs()
        assert not [output for output in self.outputs if isinstance(output, PlayAudio)]
        self.heard += b"".join(output.audio for output in self.outputs if isinstance(output, HearAudio))
        events = [output.event for output in self.outputs if isinstance(output, ServerEvent)]
        for event in events:
            assert not event["type"].startswith("output_audio_buffer.")
            check(event)
        return events

    def send(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        frame = orjson.dumps({"type": kind, **fields}).decode()
        self.session.receive_client_event(frame, sender=1, now=self.now)
        return self.drain()

    def update(self, **session: Any) -> dict[str, Any]:
        (updated,) = self.send("session.update", session={"type": "realtime", **session})
        assert updated["type"] == "session.updated", updated
        session_object: dict[str, Any] = updated["session"]
        return session_object

    def append(self, audio: bytes) -> list[dict[str, Any]]:
        return self.send("input_audio_buffer.append", audio=base64.b64encode(audio).decode())

    def engine(self, *events: Any) -> list[dict[str, Any]]:
        for event in events:
            self.session.receive_engine_event(event, self.now)
        return self.drain()

    def talk(self, ms: int, probability: float) -> list[dict[str, Any]]:
        """Append in real time; the engine says how much of a voice it is."""
        events = []
        for _ in range(ms // 20):
            self.now += 0.02
            self.heard_ms += 20
            events += self.append(b"\1\0" * 480)
            events += self.engine(VoiceActivity(probability, self.heard_ms))
        return events

    def respond(self) -> Respond:
        self.send("response.create")
        return self.asked()

    def asked(self) -> Respond:
        (command,) = [output for output in self.outputs if isinstance(output, Respond)]
        return command

    def wait(self) -> list[dict[str, Any]]:
        """Let time pass to the next timer."""
        deadline = self.session.next_timer()
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.session.handle_timer(self.now)
        return self.drain()


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def formats(hears: str, speaks: str) -> dict[str, Any]:
    return {"audio": {"input": {"format": {"type": hears}}, "output": {"format": {"type": speaks}}}}


def speech(command: Respond, text: str, ms: int, width: int = 48) -> ResponseSpeech:
    return ResponseSpeech(command.response_id, command.generation, text, b"\1" * width * ms)


# Formats.


@pytest.mark.parametrize(
    ("hears", "speaks", "engine"),
    [
        ("audio/pcm", "audio/pcm", "audio/pcm"),
        ("audio/pcmu", "audio/pcmu", "audio/pcmu"),
        ("audio/pcma", "audio/pcmu", "audio/pcma"),
        # A telephone's sound in, better sound out.
        ("audio/pcmu", "audio/pcm", "audio/pcm"),
        ("audio/pcm", "audio/pcmu", "audio/pcm"),
    ],
)
def test_the_engines_format_is_the_one_that_loses_nothing(hears: Any, speaks: Any, engine: str) -> None:
    assert common_format(hears, speaks) == engine
    client = Client()
    client.update(**formats(hears, speaks))
    client.append(TONE[hears])
    while client.session.behind:
        client.wait()
    if hears == client.session.audio_format:
        assert client.heard == TONE[hears]
    command = client.respond()
    width = 48 if client.session.audio_format == "audio/pcm" else 8
    events = client.engine(
        speech(command, "Hi.", 100, width), ResponseFinished(command.response_id, command.generation)
    )
    said = b"".join(
        base64.b64decode(e["delta"]) for e in events if e["type"] == "response.output_audio.delta"
    )
    assert len(said) == 100 * (48 if speaks == "audio/pcm" else 8)


def test_formats_may_change_until_there_is_sound_or_a_question() -> None:
    for first in ("append", "create"):
        client = Client()
        client.update(**formats("audio/pcmu", "audio/pcmu"))
        client.update(**formats("audio/pcma", "audio/pcma"))
        assert client.session.audio_format == "audio/pcma"
        if first == "append":
            client.append(TONE["audio/pcma"][:160])
        else:
            client.respond()
        told = client.update(**formats("audio/pcm", "audio/pcm"))
        # The client's formats are what it says; the engine's stands.
        assert told["audio"]["input"]["format"]["type"] == "audio/pcm"
        assert client.session.audio_format == "audio/pcma"
        client.heard = b""
        client.append(TONE["audio/pcm"])
        while client.session.behind:
            client.wait()
        samples = g711.decode(client.heard, "PCMA")
        assert abs(len(samples) - 8000) <= 160
        assert np.sqrt(np.mean(np.square(samples[400:].astype(float)))) > 3000


def test_a_text_item_before_the_formats_are_said_keeps_them_open_to_conversion_only() -> None:
    client = Client()
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    client.send("conversation.item.create", item=item)
    client.update(**formats("audio/pcmu", "audio/pcmu"))
    client.append(TONE["audio/pcmu"])
    while client.session.behind:
        client.wait()
    assert abs(len(client.heard) - 48_000) <= 960


# What is appended (row E23).


def test_pieces_of_any_length_become_frames_of_20_ms() -> None:
    client = Client()
    sound = TONE["audio/pcm"]
    at = 0
    for size in (2, 958, 960, 4800, 1442, 30):
        client.append(sound[at : at + size])
        assert all(len(o.audio) == 960 for o in client.outputs if isinstance(o, HearAudio))
        at += size
    assert client.heard == sound[: at - at % 960]


def test_a_commit_takes_the_rest_too_filled_up_with_silence() -> None:
    client = Client(**MANUAL)
    client.append(TONE["audio/pcm"][: 48 * 110])
    events = client.send("input_audio_buffer.commit")
    assert types(events)[0] == "input_audio_buffer.committed"
    (transcribe,) = [output for output in client.outputs if isinstance(output, Transcribe)]
    assert transcribe.audio == TONE["audio/pcm"][: 48 * 110] + b"\0" * 48 * 10
    assert client.heard == transcribe.audio


def test_a_clear_forgets_the_rest_too() -> None:
    client = Client(**MANUAL)
    client.append(TONE["audio/pcm"][: 48 * 110])
    assert types(client.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    client.append(TONE["audio/pcm"][: 48 * 100])
    client.send("input_audio_buffer.commit")
    (transcribe,) = [output for output in client.outputs if isinstance(output, Transcribe)]
    assert transcribe.audio == TONE["audio/pcm"][: 48 * 100]


def test_a_long_append_is_heard_a_little_at_a_time_and_before_the_next_event() -> None:
    client = Client(**MANUAL)
    client.append(TONE["audio/pcm"] * 10)
    assert client.session.behind
    assert client.session.next_timer() == client.now
    steps = [len(client.heard)]
    for _ in range(3):
        client.engine(VoiceActivity(0.0, len(client.heard) / 48))
        assert client.session.next_timer() == client.now
        client.wait()
        steps.append(len(client.heard))
    assert {after - before for before, after in itertools.pairwise(steps)} == {500 * 48}
    client.send("input_audio_buffer.commit")
    assert client.heard == TONE["audio/pcm"] * 10
    assert not client.session.behind


def test_no_more_than_a_second_waits_for_the_engines_ear_unless_time_passes() -> None:
    client = Client(**MANUAL)
    client.append(TONE["audio/pcm"] * 10)
    client.wait()
    began = client.now
    assert len(client.heard) == 1000 * 48
    # Other sessions' sound would wait behind more. An engine that tells nothing gets it as a call's comes.
    client.wait()
    assert (client.now, len(client.heard)) == (pytest.approx(began + 0.5), 1500 * 48)
    client.wait()
    assert (client.now, len(client.heard)) == (pytest.approx(began + 1.0), 2000 * 48)
    # It has caught up.
    client.engine(VoiceActivity(0.0, 2000.0))
    client.wait()
    assert (client.now, len(client.heard)) == (pytest.approx(began + 1.0), 2500 * 48)


def test_a_fault_while_hearing_leaves_no_rest_behind_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(**MANUAL)
    client.append(TONE["audio/pcm"] * 2)
    taking = client.session._take_frames

    def fail(frames: list[bytes], now: float) -> None:
        monkeypatch.setattr(client.session, "_take_frames", taking)
        raise ZeroDivisionError

    monkeypatch.setattr(client.session, "_take_frames", fail)
    with pytest.raises(ZeroDivisionError):
        client.wait()
    while client.session.behind:
        client.wait()


def test_appended_audio_holds_what_a_resampler_held_back() -> None:
    appended = AppendedAudio("audio/pcm")
    frames = []
    for start in range(0, 8000, 160):
        appended.add(TONE["audio/pcmu"][start : start + 160], "audio/pcmu")
        frames += appended.take()
    frames += appended.finish()
    sound = b"".join(frames)
    assert len(sound) - 48_000 in range(960)
    assert {len(frame) for frame in frames} == {960}


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"audio": "AAA"}, "invalid_value", "audio"),
        ({"audio": "AA=="}, "invalid_value", "audio"),
        ({"audio": None}, "invalid_type", "audio"),
        ({}, "missing_required_parameter", "audio"),
        ({"audio": "AAAA", "extra": 1}, "unknown_parameter", "extra"),
        ({"audio": "A" * (16 * 1024 * 1024 * 4 // 3)}, "invalid_value", "audio"),
    ],
)
def test_a_wrong_append_is_an_error_and_the_session_goes_on(fields: Any, code: str, param: str) -> None:
    client = Client()
    (event,) = client.send("input_audio_buffer.append", event_id="mine", **fields)
    assert event["type"] == "error"
    assert (event["error"]["code"], event["error"]["param"]) == (code, param)
    assert event["error"]["event_id"] == "mine"
    client.append(TONE["audio/pcm"][:960])
    assert client.heard == TONE["audio/pcm"][:960]


def test_a_wrong_event_id_of_an_append_is_an_error_too() -> None:
    client = Client()
    for event_id in (7, "x" * 513):
        (event,) = client.send("input_audio_buffer.append", audio="AAAA", event_id=event_id)
        assert event["error"]["param"] == "event_id"
    assert client.heard == b""


# Turns.


def test_a_turn_by_voice_in_virtual_time() -> None:
    client = Client(audio={"input": {"transcription": {"model": "whisper-1"}}})
    events = client.talk(400, 0.9) + client.talk(600, 0.0)
    kinds = types(events)
    assert kinds[:2] == ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"]
    assert "response.created" in kinds
    item_id = next(event["item_id"] for event in events if event["type"] == "input_audio_buffer.committed")
    heard = client.engine(Transcribed(item_id, 1, "Good morning.", 0.8))
    assert types(heard)[-1] == "conversation.item.input_audio_transcription.completed"
    assert client.asked().items[0]["content"][0]["transcript"] == "Good morning."


def test_a_client_that_sends_faster_than_the_engine_listens_gets_each_turns_own_words() -> None:
    client = Client()
    talk = (b"\1\0" * 480 * 20 + b"\0\0" * 480 * 30) * 2
    client.append(talk)
    while client.session.behind:
        client.wait()
    asked = []
    for number in range(100):
        client.engine(VoiceActivity(0.9 if number % 50 < 20 else 0.0, 20.0 * (number + 1)))
        asked += [output for output in client.outputs if isinstance(output, Transcribe)]
    assert len(asked) == 2
    for transcribe in asked:
        assert transcribe.audio.count(b"\1\0") == 480 * 20
        assert len(transcribe.audio) <= 48 * (300 + 400 + 200)


def test_a_voice_cancels_the_response_and_only_the_client_truncates() -> None:
    client = Client()
    command = client.respond()
    events = client.engine(speech(command, "One two three four five six.", 2000))
    item_id = next(e["item"]["id"] for e in events if e["type"] == "response.output_item.added")
    events = client.talk(200, 0.9)
    assert types(events)[0] == "input_audio_buffer.speech_started"
    done = next(event for event in events if event["type"] == "response.done")
    assert done["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert "conversation.item.truncated" not in types(events)
    item = client.session.conversation.get(item_id)
    assert item is not None
    # What nobody took back counts as heard.
    assert item.transcript == "One two three four five six."

    truncate = {"item_id": item_id, "content_index": 0}
    (told,) = client.send("conversation.item.truncate", **truncate, audio_end_ms=2001)
    assert (told["type"], told["audio_end_ms"]) == ("conversation.item.truncated", 2000)
    assert item.transcript == "One two three four five six."
    (told,) = client.send("conversation.item.truncate", **truncate, audio_end_ms=1000)
    assert (told["type"], told["audio_end_ms"]) == ("conversation.item.truncated", 1000)
    assert item.transcript == "One two three"
    assert len(item.audio) == 1000 * 48


def test_a_response_that_is_done_is_not_interrupted() -> None:
    client = Client()
    command = client.respond()
    client.engine(speech(command, "Long.", 5000), ResponseFinished(command.response_id, command.generation))
    events = client.talk(200, 0.9)
    assert types(events) == ["input_audio_buffer.speech_started"]
    assert not [output for output in client.outputs if isinstance(output, CancelResponse)]


def test_output_audio_buffer_clear_names_what_to_do_instead() -> None:
    client = Client()
    (event,) = client.send("output_audio_buffer.clear", event_id="c1")
    assert (event["error"]["code"], event["error"]["event_id"]) == ("unsupported_event", "c1")
    assert "conversation.item.truncate" in event["error"]["message"]


def test_the_idle_timer_waits_until_the_client_has_played_what_it_got() -> None:
    """Row O14: there is no played clock, but sound takes as long as it is."""
    turn_detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    client = Client(audio={"input": {"turn_detection": turn_detection}})
    command = client.respond()
    client.engine(speech(command, "Long.", 8000), ResponseFinished(command.response_id, command.generation))
    assert client.session.next_timer() == pytest.approx(client.now + 8 + 5)
    client.talk(13_000, 0.0)
    events = client.wait()
    assert types(events)[0] == "input_audio_buffer.timeout_triggered"
    assert (events[0]["audio_start_ms"], events[0]["audio_end_ms"]) == (8000, 13_000)


# The end.


def test_an_engine_that_is_gone_is_told_to_the_client() -> None:
    client = Client()
    client.respond()
    events = client.engine(EngineFailed("out of memory"))
    assert types(events) == ["error", "response.done"]
    assert (events[0]["error"]["type"], events[0]["error"]["code"]) == ("server_error", "engine_failed")
    assert events[1]["response"]["status"] == "failed"


def test_nobody_is_waited_for_when_the_client_is_gone() -> None:
    client = Client()
    client.respond()
    client.append(TONE["audio/pcm"] * 10)
    client.session.detach(1)
    client.session.close("the client went away", client.now)
    assert not client.session.behind
    assert client.session.next_timer() == client.now
    client.wait()
    assert [output for output in client.outputs if isinstance(output, SessionClosed)]


def test_a_client_that_is_there_gets_the_last_words_first() -> None:
    client = Client(audio={"input": {"transcription": {"model": "whisper-1"}}})
    client.talk(400, 0.9)
    client.session.close("expired", client.now)
    kinds = types(client.drain())
    assert kinds[0] == "input_audio_buffer.speech_stopped"
    assert client.session.next_timer() == pytest.approx(client.now + 1.0)


def test_the_session_expires() -> None:
    client = Client(max_duration_s=600)
    (event,) = client.wait()
    assert event["error"]["code"] == "session_expired"
    assert client.now == 610


@pytest.mark.parametrize(
    ("transcription", "language"),
    [
        ({"language": "de"}, "de"),
        ({"languages": ["de"]}, "de"),
        ({"languages": ["de", "fr"]}, None),
        ({"languages": ["de", "fr"], "language": "fr"}, "fr"),
        ({"languages": []}, None),
    ],
)
def test_one_language_is_the_language(transcription: dict[str, Any], language: str | None) -> None:
    """Row G11: openai-agents says `languages` where it used to say `language`."""
    client = Client(audio={"input": {"turn_detection": None, "transcription": transcription}})
    client.append(TONE["audio/pcm"])
    client.send("input_audio_buffer.commit")
    (transcribe,) = [output for output in client.outputs if isinstance(output, Transcribe)]
    assert transcribe.language == language
