"""The caller's audio: a clock that counts it, and as much of it as the current utterance needs."""

from __future__ import annotations

__all__ = ["InputBuffer"]

MAX_HELD_S = 120
"An utterance longer than this keeps its end."


class InputBuffer:
    """Audio in one format (`bytes_per_ms`), addressed in ms since the session's first frame (row O17)."""

    def __init__(self, bytes_per_ms: int) -> None:
        self._bytes_per_ms = bytes_per_ms
        self._audio = bytearray()
        self._dropped = 0
        self._limit = MAX_HELD_S * 1000 * bytes_per_ms
        self._last_at = 0.0
        self.committed_ms = 0.0
        "Where the last commit or clear ended: audio before it belongs to another item."

    @property
    def end_ms(self) -> float:
        """How much audio has come in since the first frame."""
        return (self._dropped + len(self._audio)) / self._bytes_per_ms

    @property
    def start_ms(self) -> float:
        """Where the audio that is still held starts."""
        return self._dropped / self._bytes_per_ms

    @property
    def held_ms(self) -> float:
        """How much uncommitted audio is held."""
        return self.end_ms - max(self.committed_ms, self.start_ms)

    def receive_audio(self, audio: bytes, now: float) -> None:
        self._audio += audio
        self._last_at = now
        if len(self._audio) > self._limit:
            self._drop(len(self._audio) - self._limit + self._limit // 16)

    def time_of(self, ms: float) -> float:
        """Return when the audio at `ms` was received, on the clock that `now` is read from."""
        return self._last_at - (self.end_ms - ms) / 1000

    def read(self, start_ms: float, end_ms: float) -> bytes:
        """Return the audio between two times, as far as it is held and not yet committed."""
        start = self._offset(max(start_ms, self.committed_ms))
        return bytes(self._audio[start : max(start, self._offset(end_ms))])

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
        return min(max(whole, 0), len(self._audio))

    def _drop(self, count: int) -> None:
        count -= count % self._bytes_per_ms
        del self._audio[:count]
        self._dropped += count
