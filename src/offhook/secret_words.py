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
        self._known: dict[str, set[str]] = {}
        self._beginnings: re.Pattern[str] | None = None

    def learn(self, secrets: Iterable[str]) -> None:
        """Take these out from now on, too."""
        for secret in secrets:
            for form in _forms(secret):
                if len(form) >= SHORTEST:
                    self._known.setdefault(form[:_PREFIX], set()).add(form)
        if self._known:
            beginnings = sorted(map(re.escape, self._known))
            self._beginnings = re.compile("|".join(beginnings))

    def redact(self, text: str) -> str:
        """Return the text without secrets."""
        if self._beginnings is not None:
            text = self._redact_known(text, self._beginnings)
        return _SHAPES.sub(_keep_name, text)

    def _redact_known(self, text: str, beginnings: re.Pattern[str]) -> str:
        # A pattern of thousands of whole keys would be slow: their few beginnings are looked for, and then the keys.
        pieces, done = [], 0
        for found in beginnings.finditer(text):
            at = found.start()
            if at < done:
                continue
            fits = [form for form in self._known[found.group()] if text.startswith(form, at)]
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
