"""JSON made once, when it is handed over: later changes of its owner do not reach the database."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

__all__ = ["Json", "plain"]

_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


class Json(str):
    """Text that a JSON column takes as it is."""

    __slots__ = ()

    @classmethod
    def of(cls, value: Any) -> Json:
        """
        Return a value's text. Never raises: what has no JSON loses what has none, and so does NUL, see `plain`.

        Several times faster than the standard library's way, which counts on the event loop.
        """
        if isinstance(value, Json):
            return value
        try:
            text = str(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS), "utf-8")
        except (TypeError, ValueError):  # a lone surrogate, an integer of more than 64 bits
            text = _slowly(value)
        return cls(_NUL.sub(r"\1\\ufffd", text) if "\\u0000" in text else text)


def plain(text: str) -> str:
    """Return a text that every database takes: PostgreSQL has none with a NUL, and callers' headers may."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _slowly(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps({"unreadable": repr(type(value))})
    return text.encode("utf-8", "replace").decode()
