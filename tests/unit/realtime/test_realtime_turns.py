"""Turn detection on the audio's clock: rows G07 and G08, and Silero's hysteresis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.realtime.session_config import SemanticVad, ServerVad
from offhook.realtime.turns import (
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
    TurnDetector,
    TurnEvent,
    is_unfinished,
)

CHUNK = 32.0


def feed(detector: TurnDetector, probabilities: list[float], start: float = 0.0) -> list[TurnEvent]:
    events = []
    for index, probability in enumerate(probabilities, 1):
        events += detector.receive_activity(probability, start + index * CHUNK)
    return events


def test_a_turn_from_its_first_chunk_to_the_silence_behind_it() -> None:
    detector = TurnDetector(ServerVad(silence_duration_ms=500))
    events = feed(detector, [0.0] * 10 + [0.9] * 20 + [0.0] * 16)
    assert events == [
        SpeechStarted(320.0),
        SpeechPaused(960.0),
        SpeechStopped(960.0, 960.0 + 512.0),
    ]
    assert not detector.speaking


def test_a_click_is_not_speech() -> None:
    assert feed(TurnDetector(ServerVad()), [0.0, 0.9, 0.9, 0.0] * 20) == []


def test_speech_is_told_after_80_ms() -> None:
    detector = TurnDetector(ServerVad())
    assert feed(detector, [0.9, 0.9]) == []
    assert feed(detector, [0.9], 64.0) == [SpeechStarted(0.0)]


def test_a_voice_near_the_threshold_does_not_flutter() -> None:
    detector = TurnDetector(ServerVad(threshold=0.5))
    events = feed(detector, [0.6] * 4 + [0.4, 0.45, 0.36, 0.49] * 20)
    assert events == [SpeechStarted(0.0)]
    # Where a low voice ends is not known better than to two chunks.
    assert feed(detector, [0.34] * 16, 84 * CHUNK)[-1] == SpeechStopped(82 * CHUNK, 98 * CHUNK)


def test_silence_is_counted_from_where_the_voice_fell() -> None:
    """Silero's probability takes a chunk or two to come down after the last word; the caller waits for no more."""
    detector = TurnDetector(ServerVad(silence_duration_ms=500))
    events = feed(detector, [0.9] * 10 + [0.45] + [0.1] * 15)
    assert events[-1] == SpeechStopped(10 * CHUNK, 26 * CHUNK)


def test_a_word_behind_a_low_syllable_goes_on_with_the_turn() -> None:
    detector = TurnDetector(ServerVad(silence_duration_ms=500))
    events = feed(detector, [0.9] * 10 + [0.45] * 10 + [0.9] * 5 + [0.1] * 16)
    assert events[-1] == SpeechStopped(25 * CHUNK, 41 * CHUNK)


def test_the_threshold_is_the_apps() -> None:
    assert feed(TurnDetector(ServerVad(threshold=0.9)), [0.8] * 50) == []


def test_a_pause_is_transcribed_and_a_resumed_one_again() -> None:
    detector = TurnDetector(ServerVad(silence_duration_ms=700))
    events = feed(detector, [0.9] * 5 + [0.0] * 10 + [0.9] * 5 + [0.0] * 10)
    assert [type(event) for event in events] == [SpeechStarted, SpeechPaused, SpeechResumed, SpeechPaused]


def test_a_pause_shorter_than_160_ms_costs_nothing() -> None:
    detector = TurnDetector(ServerVad())
    assert feed(detector, [0.9] * 5 + [0.0] * 4 + [0.9] * 5) == [SpeechStarted(0.0)]


def test_a_short_silence_still_transcribes_before_it_ends_the_turn() -> None:
    detector = TurnDetector(ServerVad(silence_duration_ms=100))
    events = feed(detector, [0.9] * 5 + [0.0] * 4)
    assert [type(event) for event in events] == [SpeechStarted, SpeechPaused, SpeechStopped]


def test_without_turn_detection_nothing_happens() -> None:
    assert feed(TurnDetector(None), [0.9] * 50 + [0.0] * 50) == []


@pytest.mark.parametrize(
    ("eagerness", "wait_ms"), [("low", 8000), ("medium", 4000), ("auto", 4000), ("high", 2000)]
)
def test_an_unfinished_sentence_gets_time(eagerness: str, wait_ms: int) -> None:
    detector = TurnDetector(SemanticVad.model_validate({"eagerness": eagerness}))
    feed(detector, [0.9] * 10)
    assert detector.receive_transcript("I would like to") == []
    events = feed(detector, [0.0] * 8, 320.0)
    assert events == [SpeechPaused(320.0)]
    assert detector.receive_transcript("I would like to") == []
    events = feed(detector, [0.0] * 300, 576.0)
    (stopped,) = events
    assert isinstance(stopped, SpeechStopped)
    assert wait_ms <= stopped.end_ms - 320.0 < wait_ms + CHUNK


def test_a_finished_sentence_ends_after_half_a_second() -> None:
    detector = TurnDetector(SemanticVad())
    feed(detector, [0.9] * 10 + [0.0] * 8)
    assert detector.receive_transcript("That is all.") == []
    events = feed(detector, [0.0] * 20, 576.0)
    assert events == [SpeechStopped(320.0, 832.0)]


def test_a_late_transcript_ends_the_turn_when_it_comes() -> None:
    detector = TurnDetector(SemanticVad())
    feed(detector, [0.9] * 10 + [0.0] * 30)
    assert detector.receive_transcript("That is all.") == [SpeechStopped(320.0, 40 * CHUNK)]


def test_a_transcript_of_before_the_caller_went_on_does_not_count() -> None:
    detector = TurnDetector(SemanticVad())
    feed(detector, [0.9] * 10 + [0.0] * 8 + [0.9] * 2)
    assert detector.receive_transcript("That is all.") == []
    assert feed(detector, [0.0] * 20, 640.0) == [SpeechPaused(640.0)]


@pytest.mark.parametrize(
    "text",
    [
        "I want to",
        "and",
        "Well, um",
        "I need the",
        "one, two,",
        "My number is...",
        "",
        "I was and.",
        "so\u2014",
    ],
)
def test_unfinished(text: str) -> None:
    assert is_unfinished(text)


@pytest.mark.parametrize(
    "text", ["Yes", "No.", "I want two", "That is all, thanks!", "What time is it?", "Sand."]
)
def test_finished(text: str) -> None:
    assert not is_unfinished(text)


@given(
    st.lists(st.floats(0, 1), max_size=300),
    st.integers(0, 2000),
    st.floats(0, 1),
)
def test_starts_and_stops_alternate_and_time_goes_forward(
    probabilities: list[float], silence: int, threshold: float
) -> None:
    detector = TurnDetector(ServerVad(silence_duration_ms=silence, threshold=threshold))
    speaking, last = False, 0.0
    for event in feed(detector, probabilities):
        match event:
            case SpeechStarted(start_ms):
                assert not speaking
                assert start_ms >= last
                speaking = True
            case SpeechStopped(speech_end_ms, end_ms):
                assert speaking
                assert last <= speech_end_ms <= end_ms
                assert end_ms - speech_end_ms >= silence
                speaking, last = False, speech_end_ms
            case _:
                assert speaking
