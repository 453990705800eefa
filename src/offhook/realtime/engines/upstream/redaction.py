"""Keeps an upstream that says its key again from saying it to anybody but us."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from urllib.parse import quote

__all__ = ["REDACTED", "Redaction"]

REDACTED = b"[key]"
MIN_KEY = 8
"Characters. What is shorter is no secret, and would be found in words that have nothing to do with it."
_AUDIO = b"output_audio.delta"
_TYPE_WITHIN = 200


class Redaction:
    """
    Takes one key out of what an upstream says: as it is, as JSON may escape it, in a URL, in hexadecimal, in base64.

    What is taken out holds nothing that JSON must escape, so a frame or a body stays what it was.
    """

    def __init__(self, key: str) -> None:
        raw = key.encode() if len(key) >= MIN_KEY else b""
        self._plain = raw
        self._forms = tuple(sorted(_encodings(raw), key=len, reverse=True)) if raw else ()
        self._escaped = re.compile(b"".join(map(_escaped, raw))) if raw else None

    def hide(self, said: bytes) -> bytes:
        """Return what was said with `[key]` in the key's place."""
        if self._escaped is None:
            return said
        if self._plain in said:
            said = said.replace(self._plain, REDACTED)
        if b"\\" in said:
            said = self._escaped.sub(REDACTED, said)
        if _AUDIO in said[:_TYPE_WITHIN]:
            return said  # Sound in base64: most of the bytes that come, and nobody reads words in them.
        for form in self._forms:
            if form in said:
                said = said.replace(form, REDACTED)
        return said


def _encodings(raw: bytes) -> set[bytes]:
    quoted = quote(raw, safe="").encode()
    found = {quoted, quoted.lower(), raw.hex().encode(), raw.hex().upper().encode(), *_base64(raw)}
    return found - {raw}


def _base64(raw: bytes) -> Iterator[bytes]:
    """Yield the part that is the same whatever stands around the key, for each of the three ways it may lie."""
    for before, unsure in ((0, 0), (1, 2), (2, 3)):
        whole = (before + len(raw)) // 3 * 3
        encoded = base64.b64encode((bytes(before) + raw)[:whole])[unsure:]
        yield encoded
        yield encoded.translate(bytes.maketrans(b"+/", b"-_"))


def _escaped(byte: int) -> bytes:
    """Return a pattern for one character in any of the ways in which JSON may write it."""
    char = re.escape(bytes([byte]))
    short = rb"|\\" + char if byte in b'/"\\' else b""
    return rb"(?:(?i:\\u00%02x)" % byte + short + b"|" + char + b")"
