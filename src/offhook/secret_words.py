"""Takes keys out of text that others read. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

__all__ = ["SecretWords"]

SHORTEST: Final = 8
"Characters. What is shorter is no key but a word that may stand anywhere."
_PREFIX: Final = 4
_REDACTED: Final = "(redacted)"
_SHAPES: Final = re.compile(
    r"(?<![A-Za-z0-9_])(?:whsec_[A-Za-z0-9+/=]{16,}|sk-[A-Za-z0-9_-]{20,}|ak-[A-Za-z0-9_-]{20,})"
    r"|(?i:inline[ ]?:[ ]?)[A-Za-z0-9+/=]{20,}"
    r"|(?i:\bBearer )[A-Za-z0-9._~+/=-]{8,}"
)
"What is a key by its looks: webhook secrets, API keys, SRTP keys (RFC 4568), bearer tokens."


class SecretWords:
    """
    Knows a node's secrets, and takes them out of text: as they are, and as JSON, URLs and base64 write them.

    What looks like a key goes as well, whoever it belongs to: a caller's SRTP key, an app's typing error.
    """

    def __init__(self) -> None:
        # By their first characters. Another thread reads while more are learned, so nothing in here is taken out.
        self._known: dict[str, list[str]] = {}
        self._all: set[str] = set()
        # What may stand at each of the first places; `_may_begin` finds where all of them fit.
        self._places: list[set[str]] = [set() for _ in range(_PREFIX)]
        self._may_begin: re.Pattern[str] | None = None

    def learn(self, secrets: Iterable[str]) -> None:
        """Take these out from now on, too."""
        for secret in secrets:
            for form in _forms(secret) - self._all:
                if len(form) >= SHORTEST:
                    self._all.add(form)
                    self._known.setdefault(form[:_PREFIX], []).append(form)
                    self._expect(form)

    def _expect(self, form: str) -> None:
        # A pattern of the keys themselves would be slow to make and to use; this one has little to learn soon.
        if self._may_begin is None or self._may_begin.match(form) is None:
            for place, char in zip(self._places, form, strict=False):
                place.add(char)
            classes = "".join(f"[{re.escape(''.join(place))}]" for place in self._places)
            self._may_begin = re.compile(f"(?={classes})")

    def redact(self, text: str) -> str:
        """Return the text without secrets."""
        return _SHAPES.sub(_keep_name, self._redact_known(text))

    def _redact_known(self, text: str) -> str:
        if self._may_begin is None:
            return text
        known, pieces, done = self._known, [], 0
        for found in self._may_begin.finditer(text):
            at = found.start()
            forms = known.get(text[at : at + _PREFIX])
            if forms is None or at < done:
                continue
            fits = [form for form in forms if text.startswith(form, at)]
            if fits:
                pieces += [text[done:at], _REDACTED]
                done = at + len(max(fits, key=len))
        return "".join([*pieces, text[done:]]) if pieces else text


def _forms(secret: str) -> set[str]:
    """Return a secret as it may be written, itself among them."""
    bare = secret.removeprefix("whsec_")
    found = {secret, bare, quote(bare, safe=""), bare.replace("/", "\\/"), repr(bare)[1:-1], _json(bare)}
    found |= {
        _json(form) for form in found
    }  # text of one kind stands in text of another: a dict's in a log line
    for word in (b"", b"Bearer "):
        encoded = base64.b64encode(word + bare.encode()).decode()
        found |= {encoded, encoded.rstrip("=").replace("+", "-").replace("/", "_")}
    return found


def _json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _keep_name(found: re.Match[str]) -> str:
    """Leave what says which kind of secret it was."""
    text = found.group()
    for mark in ("whsec_", "sk-", "ak-"):
        if text.startswith(mark):
            return mark + _REDACTED
    return text[: text.index(" ") + 1 if text[:7].lower() == "bearer " else text.index(":") + 1] + _REDACTED
