"""Text that arrives in pieces, cut into sentences that can be spoken."""

from __future__ import annotations

import re

__all__ = ["SentenceSplitter", "speakable"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER = _words(
    "mr mrs ms dr prof rev hon gen col sgt capt lt st mt ft jr sr vs fig dept approx ext e.g i.e cf al"
)
"""A point after these does not end a sentence."""
_BEFORE_CAPITAL = _words("a.m p.m etc inc ltd co corp u.s u.k u.n ph.d")
"""A point after these ends a sentence if a capital letter follows."""
_BEFORE_WORD = _words("no nos nr vol pp sec ch tel")
"""A point after these ends a sentence unless a digit follows ("No. 5")."""

_END = re.compile(r"""[.!?…]+["'\u201d\u2019)\]]*(?=\s)|[\u3002\uff01\uff1f]|\n""")
_LAST_WORD = re.compile(r"([\w.]*)\.+[\"'\u201d\u2019)\]]*$")
_LONGEST = 280
_CUT = re.compile(r".*[,;:\u2014\u2013]\s|.*\s", re.DOTALL)


class SentenceSplitter:
    """
    Cuts a stream of text into sentences, each as soon as it is surely whole.

    A point may be a decimal's ("3.5"), an abbreviation's ("Dr. Ames", "9 a.m. today") or an initial's, so the text
    after it is waited for; `flush` gives what is left. Sentences come without the white space around them.
    """

    def __init__(self) -> None:
        self._text = ""

    def push(self, text: str) -> list[str]:
        """Take a piece of text; return the sentences that are now whole, mostly none or one."""
        self._text += text
        sentences: list[str] = []
        start = search = 0
        while match := _END.search(self._text, search):
            ends = self._is_end(start, match)
            if ends is None:
                break
            search = match.end()
            if ends:
                sentences.append(self._text[start : match.end()])
                start = match.end()
        self._text = self._text[start:]
        while len(self._text) > _LONGEST:
            cut = _CUT.match(self._text[:_LONGEST])
            end = cut.end() if cut else _LONGEST
            sentences.append(self._text[:end])
            self._text = self._text[end:]
        return [stripped for sentence in sentences if (stripped := sentence.strip())]

    def flush(self) -> list[str]:
        """Return what is left, whole or not."""
        rest, self._text = self._text.strip(), ""
        return [rest] if rest else []

    def drop(self) -> None:
        """Forget a sentence that has begun."""
        self._text = ""

    def _is_end(self, start: int, match: re.Match[str]) -> bool | None:
        """Say whether a mark ends a sentence; None if what comes next must be seen first."""
        mark = match.group()
        if not mark.startswith((".", "…")):
            return True
        after = self._text[match.end() :].lstrip()
        if not after:
            return True if "\n" in self._text[match.end() :] else None
        following = after[0]
        found = _LAST_WORD.search(self._text[start : match.end()])
        word = found.group(1).lower() if found else ""
        if following.islower() or word in _NEVER:
            return False
        if len(word) == 1 and word.isalpha() and word != "i":
            return False  # an initial: "J. Smith"
        if word in _BEFORE_CAPITAL:
            return following.isupper()
        if word in _BEFORE_WORD:
            return not following.isdigit()
        # "1." at the start of a line numbers what follows.
        return not (word.isdigit() and self._text[start : match.start()].strip() == word)


_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_LINE_MARK = re.compile(r"^\s*(?:#{1,6}\s+|[-*•]\s+|>\s+)", re.MULTILINE)
_MARKS = re.compile(r"[*_`~]{1,3}(?=\S)|(?<=\S)[*_`~]{1,3}")
_PICTURES = re.compile("[\u2600-\u27bf\ufe0f\u200d\U0001f000-\U0001faff]")
_SPACE = re.compile(r"\s+")


def speakable(text: str) -> str:
    """Return text as it can be said: without the marks of Markdown, and without pictures. May be empty."""
    text = _LINK.sub(r"\1", text)
    text = _LINE_MARK.sub("", text)
    text = _MARKS.sub("", text)
    text = _PICTURES.sub("", text)
    return _SPACE.sub(" ", text).strip()
