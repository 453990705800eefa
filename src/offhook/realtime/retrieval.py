"""The answer to `conversation.item.retrieve` when the item has sound (row E20)."""

from __future__ import annotations

import base64
from typing import Any

import orjson

from offhook.realtime.conversation import Item
from offhook.realtime.engine import AudioFormat
from offhook.realtime.sideband_audio import AudioConverter, bytes_per_ms

__all__ = ["RetrievedItem"]

PIECE_MS = 500
"How much sound is encoded at a time: well below a millisecond's work."


class RetrievedItem:
    """
    A `conversation.item.retrieved` whose sound is yet to be encoded.

    Both agents SDKs ask for an item after every turn, and half a minute of it takes 15 ms: too long for a loop that
    sends every call's sound. So call `encode_next` until it returns true, other work in between; then `frame`.
    """

    def __init__(self, event_id: str, item: Item, source: AudioFormat, target: AudioFormat) -> None:
        """`source` is the format of the item's sound, `target` the one that the client asked for."""
        self._event: dict[str, Any] = {
            "type": "conversation.item.retrieved",
            "event_id": event_id,
            "item": item.to_api(),
        }
        self._index = item.audio_index or 0
        self._audio = bytes(item.audio)
        self._at = 0
        self._step = PIECE_MS * bytes_per_ms(source)
        self._converter = AudioConverter(source, target)
        self._rest = b""
        self._pieces = [b'"']

    @property
    def waiting(self) -> int:
        """How many bytes of sound are yet to be encoded."""
        return max(0, len(self._audio) - self._at)

    def encode_next(self) -> bool:
        """Encode the next piece; return whether it was the last one."""
        end = self._at + self._step
        last = end >= len(self._audio)
        sound = self._rest + self._converter.process(self._audio[self._at : end], last)
        # Base64 can be joined where three bytes end.
        whole = len(sound) if last else len(sound) - len(sound) % 3
        self._pieces.append(base64.b64encode(sound[:whole]))
        self._rest = sound[whole:]
        self._at = end
        return last

    def frame(self) -> bytes:
        """Return the event as JSON."""
        audio = orjson.Fragment(b"".join((*self._pieces, b'"')))
        self._event["item"]["content"][self._index]["audio"] = audio
        return orjson.dumps(self._event)
