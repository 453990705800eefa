"""What was heard: the played clock, and the words that go with it (decision 7 of the design)."""

from __future__ import annotations

import pytest

from offhook.realtime.conversation import Conversation, Item
from offhook.realtime.playout import Cut, Playout, PlayoutChange

MS = 8


def message(item_id: str) -> Item:
    return Item(item_id, "message", role="assistant", content=[{"type": "output_audio", "transcript": ""}])


def started(response_id: str) -> PlayoutChange:
    return PlayoutChange("started", response_id)


def stopped(response_id: str) -> PlayoutChange:
    return PlayoutChange("stopped", response_id)


def test_a_response_sounds_from_its_first_sample_to_its_last() -> None:
    playout, item = Playout(MS, 1), message("a")
    assert playout.add("r", item, b"x" * 800) == [started("r")]
    assert playout.add("r", item, b"x" * 800) == []
    assert playout.progress(800) == []
    assert playout.finish("r") == []
    assert playout.progress(1599) == []
    assert playout.progress(1600) == [stopped("r")]
    assert not playout.busy


def test_it_sounds_on_while_more_is_being_made() -> None:
    playout, item = Playout(MS, 1), message("a")
    playout.add("r", item, b"x" * 800)
    assert playout.progress(800) == []
    assert playout.busy
    assert playout.finish("r") == [stopped("r")]


def test_the_next_response_starts_when_the_one_before_is_over() -> None:
    playout = Playout(MS, 1)
    playout.add("r1", message("a"), b"x" * 800)
    playout.finish("r1")
    assert playout.add("r2", message("b"), b"x" * 800) == []
    assert playout.finish("r2") == []
    assert playout.progress(801) == [stopped("r1"), started("r2")]
    assert playout.drain(1600) == [stopped("r2")]


def test_two_items_of_one_response_are_one_sound() -> None:
    playout = Playout(MS, 1)
    playout.add("r", message("a"), b"x" * 800)
    playout.add("r", message("b"), b"x" * 800)
    playout.finish("r")
    assert playout.progress(900) == []
    assert playout.progress(1600) == [stopped("r")]


def test_cut_says_how_much_of_each_was_heard() -> None:
    playout = Playout(MS, 1)
    items = [message(name) for name in "abc"]
    for item, response_id in zip(items, ("r1", "r1", "r2"), strict=True):
        playout.add(response_id, item, b"x" * 800)
    playout.finish("r1")
    playout.progress(1200)
    assert playout.cut() == [Cut("r1", items[1], 50), Cut("r2", items[2], 0)]
    assert not playout.busy
    assert playout.sounding is None
    # What comes next starts where the sender's clock stands.
    assert playout.add("r3", message("d"), b"x" * 800) == [started("r3")]
    playout.progress(1200 + 80)
    assert [cut.heard_ms for cut in playout.cut()] == [10]


def test_padding_of_the_senders_last_frame_is_not_speech() -> None:
    playout, item = Playout(MS, 1), message("a")
    playout.add("r", item, b"x" * 100)
    playout.drain(160)
    playout.add("r", item, b"x" * 800)
    playout.progress(160 + 400)
    assert playout.cut() == [Cut("r", item, 500 // MS)]


def test_16_bit_samples() -> None:
    playout, item = Playout(24, 2), message("a")
    playout.add("r", item, b"xx" * 2400)
    playout.progress(1200)
    assert playout.cut() == [Cut("r", item, 50)]


# Words.


def spoken(*lines: tuple[str, int]) -> Item:
    item = message("a")
    for text, ms in lines:
        item.add_speech(text, b"x" * (ms * MS), MS)
    item.end_speech()
    return item


@pytest.mark.parametrize(
    ("heard_ms", "text"),
    [
        (0, ""),
        (99, ""),
        (500, "one two"),
        (999, "one two three"),
        (1000, "one two three four."),
        (1500, "one two three four. Five"),
        (2000, "one two three four. Five six."),
        (9000, "one two three four. Five six."),
    ],
)
def test_words_that_were_heard(heard_ms: int, text: str) -> None:
    assert spoken(("one two three four.", 1000), (" Five six.", 1000)).heard_text(heard_ms) == text


def test_words_whose_sound_is_still_being_made() -> None:
    """100 ms of sound were made and heard, of a sentence that takes much longer."""
    item = message("a")
    item.add_speech("A long sentence that has only begun.", b"x" * (100 * MS), MS)
    assert item.heard_text(100) == "A"


def test_truncation_cuts_the_sound_too() -> None:
    conversation = Conversation("conv_1", bytes_per_ms=MS)
    item = spoken(("one two three four.", 1000))
    conversation.append(item)
    conversation.truncate(item, 500)
    assert item.transcript == "one two"
    assert len(item.audio) == 500 * MS
    assert item.audio_ms == 500


def test_a_conversation_forgets_its_oldest_sound() -> None:
    conversation = Conversation("conv_1", bytes_per_ms=MS)
    items = [spoken((f"{n}", 50_000)) for n in range(4)]
    for n, item in enumerate(items):
        item.id = f"item_{n}"
        conversation.append(item)
        conversation.forget_audio()
    assert [len(item.audio) for item in items] == [0, 0, 50_000 * MS, 50_000 * MS]
    assert [item.audio_ms for item in items] == [50_000] * 4


def test_what_was_never_heard_is_not_in_the_engines_context() -> None:
    conversation = Conversation("conv_1", bytes_per_ms=MS)
    item = spoken(("one two", 1000))
    conversation.append(item)
    assert len(conversation.to_engine()) == 1
    conversation.truncate(item, 0)
    assert conversation.to_engine() == []
