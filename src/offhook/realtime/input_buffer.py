"""The caller's audio: a clock that counts it, and as much of it as the current utterance needs."""

from __future__ import annotations

from collections import deque

__all__ = ["InputBuffer"]

MAX_HELD_S = 120
"An utterance longer than this keeps its end."
_BLOCK = 64 * 1024
"Bytes after which a new block begins: to give up the first of two minutes in one block would move all the others."


class InputBuffer:
    """Audio in one format (`bytes_per_ms`), addressed in ms since the session's first frame (row O17)."""

    def __init__(self, bytes_per_ms: int) -> None:
        self._bytes_per_ms = bytes_per_ms
        self._tail = bytearray()
        self._blocks = deque([self._tail])
        self._held = 0
        self._dropped = 0
        self._limit = MAX_HELD_S * 1000 * bytes_per_ms
        self._last_at = 0.0
        self.committed_ms = 0.0
        "Where the last commit or clear ended: audio before it belongs to another item."

    @property
    def end_ms(self) -> float:
        """How much audio has come in since the first frame."""
        return (self._dropped + self._held) / self._bytes_per_ms

    @property
    def start_ms(self) -> float:
        """Where the audio that is still held starts."""
        return self._dropped / self._bytes_per_ms

    @property
    def held_ms(self) -> float:
        """How much uncommitted audio is held."""
        return self.end_ms - max(self.committed_ms, self.start_ms)

    def receive_audio(self, audio: bytes, now: float) -> None:
        self._tail += audio
        self._held += len(audio)
        self._last_at = now
        if len(self._tail) >= _BLOCK:
            self._tail = bytearray()
            self._blocks.append(self._tail)
        if self._held > self._limit:
            self._drop(self._held - self._limit + self._limit // 16)

    def time_of(self, ms: float) -> float:
        """Return when the audio at `ms` was received, on the clock that `now` is read from."""
        return self._last_at - (self.end_ms - ms) / 1000

    def read(self, start_ms: float, end_ms: float) -> bytes:
        """Return the audio between two times, as far as it is held and not yet committed."""
        start = self._offset(max(start_ms, self.committed_ms))
        end = max(start, self._offset(end_ms))
        pieces, at = [], 0
        for block in self._blocks:
            if at < end and at + len(block) > start:
                pieces.append(memoryview(block)[max(0, start - at) : end - at])
            at += len(block)
        return b"".join(pieces)

    def commit(self, end_ms: float) -> None:
        """Give up everything before `end_ms`."""
        self.committed_ms = max(self.committed_ms, min(end_ms, self.end_ms))

    def release(self, keep_from_ms: float) -> None:
        """Drop what is not needed; cheap, since it waits until there is a second to drop."""
        excess = self._offset(min(keep_from_ms, self.end_ms))
        if excess > 1000 * self._bytes_per_ms:
            self._drop(excess)

    def _offset(self, ms: float) -> int:
        whole = int(ms) * self._bytes_per_ms - self._dropped
        return min(max(whole, 0), self._held)

    def _drop(self, count: int) -> None:
        count -= count % self._bytes_per_ms
        self._dropped += count
        self._held -= count
        while count:
            first = self._blocks[0]
            if len(first) <= count and first is not self._tail:
                self._blocks.popleft()
                count -= len(first)
            else:
                del first[:count]
                return
