"""Sentences that were spoken before."""

from __future__ import annotations

from collections import OrderedDict

from ...engine import AudioFormat

__all__ = ["SpokenSentences"]

_HELD_BYTES = 4_000_000
"""Eight minutes of G.711."""

Key = tuple[str, AudioFormat, float]


class SpokenSentences:
    """
    The sound of the sentences that were said last, by text, format and speed.

    A receptionist says the same few sentences to everybody, and the voice says a sentence the same way each time. From
    here it comes at once, where making it takes 25 ms, and more when other callers' sentences are being made.
    """

    def __init__(self, held_bytes: int = _HELD_BYTES) -> None:
        self._held_bytes = held_bytes
        self._bytes = 0
        self._sounds: OrderedDict[Key, bytes] = OrderedDict()

    def get(self, key: Key) -> bytes | None:
        sound = self._sounds.get(key)
        if sound is not None:
            self._sounds.move_to_end(key)
        return sound

    def put(self, key: Key, sound: bytes) -> None:
        """Keep a sentence's whole sound. What was not said for the longest time gives way."""
        if key in self._sounds or len(sound) > self._held_bytes:
            return
        self._sounds[key] = sound
        self._bytes += len(sound)
        while self._bytes > self._held_bytes:
            _, oldest = self._sounds.popitem(last=False)
            self._bytes -= len(oldest)
