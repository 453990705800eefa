"""How long a text is in tokens, and how much of it fits (rows G15, G16)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.realtime.tokens import Allowance, count_tokens


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("\u8a9e\u8a9e\u8a9e\u8a9e", 3)]
)
def test_four_bytes_are_a_token(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [(1, "One"), (2, "One two"), (3, "One two"), (4, "One two three"), (5, "One two three four."), (9, "")],
)
def test_whole_words_are_kept(tokens: int, kept: str) -> None:
    text = "One two three four."
    allowance = Allowance(tokens)
    assert allowance.cut(text) == (kept or text)
    assert allowance.spent is (tokens < 5)
    assert allowance.used == count_tokens(kept or text)


def test_what_does_not_fit_ends_it() -> None:
    allowance = Allowance(3)
    assert allowance.holds("abcdefgh")
    assert not allowance.holds("abcdefgh")
    assert not allowance.holds("a")
    assert (allowance.used, allowance.spent) == (2, True)


def test_without_a_limit_all_fits() -> None:
    allowance = Allowance("inf")
    assert allowance.cut("x" * 100_000) == "x" * 100_000
    assert (allowance.used, allowance.spent) == (25_000, False)


@given(st.text(), st.integers(0, 40))
def test_what_is_kept_begins_the_text_and_never_costs_more(text: str, tokens: int) -> None:
    allowance = Allowance(tokens)
    kept = allowance.cut(text)
    assert text.startswith(kept)
    assert allowance.used == count_tokens(kept) <= tokens
    assert allowance.spent is (kept != text)
