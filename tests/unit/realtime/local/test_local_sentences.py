"""Text in pieces becomes sentences to speak: what a listener would call a sentence, as early as it is sure."""

import pytest

from offhook.realtime.engines.local.sentences import SentenceSplitter, speakable

CASES = [
    ("One. Two! Three?", ["One.", "Two!", "Three?"]),
    ("It costs $3.50 today. Fine.", ["It costs $3.50 today.", "Fine."]),
    ("Dr. Ames and Mrs. Bell are in. Please wait.", ["Dr. Ames and Mrs. Bell are in.", "Please wait."]),
    ("J. R. Smith called. He waits.", ["J. R. Smith called.", "He waits."]),
    ("We open at 9 a.m. on Mondays. Come by.", ["We open at 9 a.m. on Mondays.", "Come by."]),
    ("We close at 5 p.m. Please call again.", ["We close at 5 p.m.", "Please call again."]),
    ("Use e.g. a phone. Or not.", ["Use e.g. a phone.", "Or not."]),
    ("It is room No. 5. Go up.", ["It is room No. 5.", "Go up."]),
    ("No. That is wrong.", ["No.", "That is wrong."]),
    ("Well... maybe later. Yes... No.", ["Well... maybe later.", "Yes...", "No."]),
    ('He said "wait." Then he left.', ['He said "wait."', "Then he left."]),
    ("Steps:\n1. Call us.\n2. Wait.", ["Steps:", "1. Call us.", "2. Wait."]),
    ("Visit example.com now. Bye.", ["Visit example.com now.", "Bye."]),
    ("So am I. You too?", ["So am I.", "You too?"]),
    ("No end", ["No end"]),
    ("", []),
    ("  \n ", []),
    ("\u4f60\u597d\u3002\u518d\u89c1\u3002", ["\u4f60\u597d\u3002", "\u518d\u89c1\u3002"]),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_sentences_are_the_same_however_the_text_is_cut(text, expected, size):
    splitter = SentenceSplitter()
    found = []
    for at in range(0, len(text), size):
        found += splitter.push(text[at : at + size])
    assert found + splitter.flush() == expected


def test_a_sentence_comes_as_soon_as_the_next_word_begins():
    splitter = SentenceSplitter()
    assert splitter.push("Hello there.") == []
    assert splitter.push(" How") == ["Hello there."]
    assert splitter.push(" are you? ") == ["How are you?"]


def test_text_without_an_end_is_cut_at_a_comma_before_it_gets_too_long():
    splitter = SentenceSplitter()
    text = ", ".join(["and so on and so forth"] * 30)
    found = splitter.push(text) + splitter.flush()
    assert len(found) > 1
    assert all(len(sentence) <= 280 for sentence in found)
    assert " ".join(found) == text
    assert all(sentence.endswith(",") for sentence in found[:-1])


def test_one_endless_word_is_cut_too():
    splitter = SentenceSplitter()
    found = splitter.push("x" * 1000)
    assert "".join(found + splitter.flush()) == "x" * 1000
    assert all(len(sentence) <= 280 for sentence in found)


def test_drop_forgets_what_has_begun():
    splitter = SentenceSplitter()
    splitter.push("The price is")
    splitter.drop()
    assert splitter.flush() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("**Hello** _there_", "Hello there"),
        ("# Hours\n- Monday: 9 to 5\n- Tuesday: closed", "Hours Monday: 9 to 5 Tuesday: closed"),
        ("See [our site](https://example.com/a) please", "See our site please"),
        ("Great \U0001f600!", "Great !"),
        ("\U0001f600", ""),
        ("3 * 4 = 12", "3 * 4 = 12"),
        ("`code` and *stress*", "code and stress"),
    ],
)
def test_speakable_text_has_no_marks(text, said):
    assert speakable(text) == said
