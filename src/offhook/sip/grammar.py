"""What URIs and headers share of SIP's grammar: tokens, quoted strings, lists, parameters (RFC 3261 section 25)."""

from __future__ import annotations

import re

__all__ = [
    "LWS",
    "Params",
    "end_of_quoted",
    "find_param",
    "format_params",
    "has_param",
    "is_token",
    "quote",
    "split",
    "split_list",
    "unquote",
]

Params = tuple[tuple[str, str | None], ...]
"Parameters in the order received: `(name, value)`, and `(name, None)` for one without `=`."

LWS = " \t"

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_IN_TOKEN = _LETTERS + "0123456789-.!%*_+`'~"
# Each pattern is one character class, so that searching takes linear time on any input.
_SPECIAL = {",": re.compile('[,"<]'), ";": re.compile('[;"<]')}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def is_token(text: str) -> bool:
    """Tell whether the text is a token (RFC 3261 section 25.1)."""
    return bool(text) and not text.strip(_IN_TOKEN)


def quote(text: str) -> str:
    """Return the text as a quoted string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquote(text: str) -> str:
    """Return what a quoted string says; any other text comes back as it is."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    inner = text[1:-1]
    return _ESCAPED.sub(r"\1", inner) if "\\" in inner else inner


def split_list(text: str) -> list[str]:
    """Split at commas that are not inside quotes or angle brackets. Empty elements are left out."""
    return [element for piece in split(text, ",") if (element := piece.strip(LWS))]


def split(text: str, separator: str) -> list[str]:
    """Split at a comma or a semicolon that is not inside quotes or angle brackets. Takes linear time."""
    if separator not in text:
        return [text]
    if '"' not in text and "<" not in text:
        return text.split(separator)
    pieces: list[str] = []
    start = at = 0
    brackets = True
    special = _SPECIAL[separator]
    while found := special.search(text, at):
        at = found.end()
        char = found.group()
        if char == separator:
            pieces.append(text[start : at - 1])
            start = at
        elif char == '"':
            end = end_of_quoted(text, at - 1)
            if end < 0:
                break
            at = end + 1
        elif brackets:
            end = text.find(">", at)
            # Look for a missing bracket once only, or a line of `<` would take quadratic time.
            brackets = end >= 0
            at = end + 1 if brackets else at
    pieces.append(text[start:])
    return pieces


def end_of_quoted(text: str, start: int) -> int:
    """Return where the quoted string that opens at `start` closes, or -1."""
    at = start
    while (at := text.find('"', at + 1)) >= 0:
        escape = at - 1
        while escape > start and text[escape] == "\\":
            escape -= 1
        if (at - escape) % 2 == 1:
            return at
    return -1


def format_params(params: Params) -> str:
    """Return `;name=value;name` in the order given."""
    return "".join([f";{name}" if value is None else f";{name}={value}" for name, value in params])


def find_param(params: Params, name: str) -> str | None:
    """Return the value of the first parameter of that name (any case), or `None`."""
    name = name.lower()
    for key, value in params:
        if key.lower() == name:
            return value
    return None


def has_param(params: Params, name: str) -> bool:
    """Tell whether a parameter of that name (any case) is there."""
    name = name.lower()
    for key, _ in params:  # noqa: SIM110  (a generator takes twice as long, and every message asks)
        if key.lower() == name:
            return True
    return False
