"""An append of minutes (API row S19), judged and handed on a piece at a time: other sessions wait meanwhile."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from offhook.realtime.client_events import (
    MAX_AUDIO_BASE64,
    ClientEventError,
    InputAudioBufferAppend,
    parse_client_event,
)

__all__ = ["LONG", "in_pieces"]

LONG = 128 * 1024
"Characters of a frame that are judged at once, in less than half a millisecond."
_PIECE = LONG // 2
"Base64 of whole samples, whatever their size: a multiple of 8."
_NO_BASE64, _ONE_BYTE = "!", "AA=="
_AUDIO = re.compile(r'"audio"\s*:\s*"')
_WITHIN = 2_000


def in_pieces(frame: str, sample_bytes: int) -> Iterator[str]:
    """
    Yield frames that do what this one would: an append of all its sound, or the error for what is wrong with it.

    An empty one means that nothing is ready yet. Whatever is no plain append comes as it is.
    """
    found = _find(frame)
    if found is None:
        yield frame
        return
    start, end = found
    if end - start > MAX_AUDIO_BASE64:
        yield frame
        return
    head, tail = frame[:start], frame[end:]
    size = 0
    for at in range(start, end, _PIECE):
        length = _decoded(frame[at : min(at + _PIECE, end)])
        if length is None or (length != _PIECE // 4 * 3 and at + _PIECE < end):
            # JSON may escape a slash. That is rare, and decoded at once.
            yield frame if "\\" in frame[start:end] else head + _NO_BASE64 + tail
            return
        size += length
        yield ""
    if size % sample_bytes:
        yield head + _ONE_BYTE + tail
        return
    for at in range(start, end, _PIECE):
        yield head + frame[at : min(at + _PIECE, end)] + tail


def _find(frame: str) -> tuple[int, int] | None:
    """Return where the base64 stands in an append; `None`: it is none, or one with something wrong about it."""
    key = _AUDIO.search(frame, 0, _WITHIN)
    if key is None:
        return None
    start = key.end()
    end = frame.find('"', start)
    if end < 0 or len(frame) - end > _WITHIN:
        return None
    try:
        event = parse_client_event(frame[:start] + frame[end:])
    except ClientEventError:
        return None
    return (start, end) if isinstance(event, InputAudioBufferAppend) and not event.audio else None


def _decoded(text: str) -> int | None:
    """Return how many bytes this is in base64; `None`: it is not base64."""
    try:
        return len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return None
