"""Events of many megabytes do what they would in one piece, and no piece of work on them is long (API row S19)."""

from __future__ import annotations

import base64
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offhook.realtime.client_events import ClientEventError
from offhook.realtime.items import DecodedAudio
from offhook.realtime.long_events import MAX_APART, Ear, in_pieces
from offhook.realtime.long_text import LongText
from testbed.by_hand import Desk

EAR = Ear(appends=True, hears="audio/pcm", holds="audio/pcm")
SOUND = bytes(index * 7 % 251 for index in range(3 * 1024))
"With slashes and pluses in its base64."


def user(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    item = {"type": "message", "role": "user", "content": list(content)}
    return {"type": "conversation.item.create", "item": item, **fields}


def sound(audio: bytes = SOUND, **fields: Any) -> dict[str, Any]:
    return {"type": "input_audio", "audio": base64.b64encode(audio).decode(), **fields}


def pieces_of(frame: str, size: int) -> LongText:
    return LongText.of(frame[at : at + size] for at in range(0, len(frame), size))


def read(event: dict[str, Any] | str, size: int = 500, ear: Ear = EAR) -> list[Any]:
    frame = event if isinstance(event, str) else json.dumps(event)
    return [piece for piece in in_pieces(pieces_of(frame, size), ear) if piece is not None]


def fault(event: dict[str, Any] | str, size: int = 500, ear: Ear = EAR) -> ClientEventError:
    (error,) = read(event, size, ear)
    assert isinstance(error, ClientEventError)
    return error


def plainly(event: Any) -> Any:
    """Return an event as the client wrote it."""
    if isinstance(event, DecodedAudio):
        return base64.b64encode(event.audio).decode()
    if isinstance(event, dict):
        return {key: plainly(value) for key, value in event.items()}
    return [plainly(value) for value in event] if isinstance(event, list) else event


EVENTS = [
    user(sound(), event_id="one"),
    user(
        {"type": "input_text", "text": 'Say "A/B\\C" \n' * 40},
        sound(),
        sound(SOUND[:600], transcript="Hm/m."),
    ),
    user({"type": "input_text", "text": "x" * 2000 + "\u007f" + "/" * 2000}),
    {"type": "session.update", "session": {"type": "realtime", "instructions": "Be brief. " * 300 + '"\\'}},
    {"type": "response.create", "response": {"conversation": "none", "input": [user(sound())["item"]]}},
]


@settings(max_examples=150, deadline=None)
@given(event=st.sampled_from(EVENTS), size=st.integers(1, 700), slashes=st.booleans(), raw=st.booleans())
def test_an_event_is_the_same_wherever_it_is_cut(event: Any, size: int, slashes: bool, raw: bool) -> None:
    frame = json.dumps(event, ensure_ascii=not raw)
    (found,) = read(frame.replace("/", r"\/") if slashes else frame, size)
    assert plainly(found) == event


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 9000), samples=st.integers(1, len(SOUND) // 2), slashes=st.booleans())
def test_an_append_of_all_its_sound_in_order(size: int, samples: int, slashes: bool) -> None:
    audio = SOUND[: samples * 2]
    frame = json.dumps({"event_id": "e", "audio": sound(audio)["audio"], "type": "input_audio_buffer.append"})
    found = read(frame.replace("/", r"\/") if slashes else frame, size)
    assert b"".join(base64.b64decode(piece["audio"], validate=True) for piece in found) == audio
    assert {(piece["type"], piece["event_id"]) for piece in found} == {("input_audio_buffer.append", "e")}


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (sound()["audio"][:-7] + "*" + sound()["audio"][-6:], "not base64"),
        (sound(SOUND[:1000])["audio"] + sound(SOUND[:1000])["audio"], "not base64"),
        (sound(SOUND + b"x")["audio"], "not a whole number of 2-byte samples"),
        ("A" * (20 * 1024 * 1024 + 4), "at most 15 MiB"),
    ],
)
def test_wrong_sound_is_named_by_its_place(audio: str, words: str) -> None:
    for event, param in (
        ({"type": "input_audio_buffer.append", "audio": audio, "event_id": "mine"}, "audio"),
        (user({"type": "input_text", "text": "Hi"}, {"type": "input_audio", "audio": audio}, event_id="mine"),
         "item.content[1].audio"),
    ):  # fmt: skip
        error = fault(event, 64 * 1024 if len(audio) > 100_000 else 500)
        assert (error.code, error.param, error.event_id) == ("invalid_value", param, "mine")
        assert words in error.message


def test_base64_that_ends_before_its_end_is_none_wherever_it_is_cut() -> None:
    audio = 2 * sound(SOUND[:1000])["audio"]
    for size in range(40, 1300):
        assert "not base64" in fault({"type": "input_audio_buffer.append", "audio": audio}, size).message


def test_other_faults_are_what_they_are_in_short_events() -> None:
    unknown = fault(
        {"type": "input_audio_buffer.append", "audio": sound()["audio"], "more": 1, "event_id": "mine"}
    )
    assert (unknown.code, unknown.param, unknown.event_id) == ("unknown_parameter", "more", "mine")
    assert fault("x" * 5000).code == "invalid_json"
    assert fault("[" + "1," * 5000 + "1]").code == "invalid_type"
    assert fault('"' + "x" * 5000 + '"').code == "invalid_type"
    assert fault({"type": "no.such", "audio": sound()["audio"], "event_id": "mine"}).event_id == "mine"


def test_what_is_large_without_being_base64_is_refused_with_its_event_id() -> None:
    event = {"event_id": "mine", "type": "session.update", "session": {"instructions": '"' * MAX_APART}}
    error = fault(event, 64 * 1024)
    assert (error.code, error.event_id) == ("invalid_value", "mine")
    assert "1024 KiB" in error.message


def test_nothing_takes_the_place_of_a_stretch() -> None:
    for text in ("\x7f\x7f0\x7f\x7f", "\x7f\x7f9\x7f\x7f"):
        for ascii_only in (True, False):
            event = user({"type": "input_text", "text": text}, sound())
            assert fault(json.dumps(event, ensure_ascii=ascii_only)).code == "invalid_value"
    assert fault({"type": "session.update", "session": {"k" * 5000: 1}}).code == "invalid_value"


def test_deep_nesting_is_no_trouble() -> None:
    event = '{"type":"session.update","session":' + '{"audio":' * 900 + f'"{"A" * 3000}"' + "}" * 901
    (found,) = read(event)
    assert isinstance(found, ClientEventError | dict)


def test_a_phone_call_refuses_a_long_append_by_name() -> None:
    """Row E23."""
    desk = Desk()
    (piece,) = read(
        {"type": "input_audio_buffer.append", "audio": sound()["audio"], "event_id": "a1"},
        ear=desk.session.ear,
    )
    desk.session.receive_client_event(piece, sender=1, now=desk.now)
    (event,) = desk.drain()
    assert (event["error"]["code"], event["error"]["event_id"]) == ("unsupported_event", "a1")


@pytest.mark.parametrize("holds", ["audio/pcm", "audio/pcmu"])
def test_a_long_item_is_the_item_that_it_would_be(holds: str) -> None:
    """Row E19: also where its sound is converted on the way."""
    kept, codes = [], []
    for long in (False, True):
        desk = Desk(sip=holds == "audio/pcmu", audio_format=holds)
        event = user(sound(SOUND * 50, transcript="Hm."), event_id="one")
        pieces = read(event, 64 * 1024, desk.session.ear) if long else [json.dumps(event)]
        for piece in pieces:
            desk.session.receive_client_event(piece, sender=1, now=desk.now)
        added, _ = desk.drain()
        item = desk.session.conversation.get(added["item"]["id"])
        assert item is not None
        kept.append((added["item"]["content"], item.audio_ms))
        codes.append(np.frombuffer(item.audio, np.uint8).astype(int))
    assert kept[0] == kept[1]
    assert len(codes[0]) > 20_000
    # Where a filter is fed in pieces, a sample may be rounded to the next step.
    assert np.abs(codes[0] - codes[1]).max() <= (holds == "audio/pcmu")


def test_numbers_and_blanks_may_be_long_too() -> None:
    tool = {"type": "function", "name": "pick", "parameters": {"enum": list(range(9_000))}}
    update = {"type": "session.update", "session": {"type": "realtime", "tools": [tool]}}
    assert read(update) == [update]
    text = json.dumps({"type": "input_audio_buffer.append", "audio": sound()["audio"]})
    (append,) = read(
        text[:-1] + " " * 9_000 + "}", ear=Ear(appends=False, hears="audio/pcm", holds="audio/pcm")
    )
    assert append["type"] == "input_audio_buffer.append"


@pytest.mark.parametrize("holder", ["tools", "tracing"])
def test_audio_is_a_key_of_the_apps_own_elsewhere(holder: str) -> None:
    given = sound()["audio"]
    session: dict[str, Any] = {"type": "realtime"}
    if holder == "tools":
        parameters = {"type": "object", "audio": given}
        session["tools"] = [{"type": "function", "name": "play", "parameters": parameters}]
    else:
        session["tracing"] = {"workflow_name": "w", "metadata": {"audio": given}}
    update = {"type": "session.update", "session": session}
    assert read(update) == [update]


def test_a_forged_mark_is_text() -> None:
    for digits in ("9" * 5_000, "12345678", "\u0663"):
        text = f"\u007f\u007f{digits}\u007f\u007f"
        event = user({"type": "input_text", "text": text}, sound())
        (found,) = read(event)
        assert plainly(found) == event
    taken = fault(user({"type": "input_text", "text": "\u007f\u007f7\u007f\u007f"}, sound()))
    assert "U+007F" in str(taken)


def test_no_shape_of_an_event_costs_more_than_its_length() -> None:
    """A long key over many values, and values one in another: a path is written out for none of them."""
    audio = "A" * 5_000
    key = '"'.join(["k" * 900] * 100)
    wide = {"type": "x", key: [[""] for _ in range(30_000)], "audio": audio}
    tracemalloc.start()
    try:
        assert fault(wide).code == "invalid_value"
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()
    deep: Any = {"audio": audio}
    for _ in range(150):
        deep = {key[:900]: deep}
    assert fault({"type": "x", "deep": deep}).code == "invalid_value"
