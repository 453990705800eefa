"""Sound waiting to be sent, in the codec of the call."""

from __future__ import annotations

from collections import deque

from offhook.audio import g711
from offhook.audio.frames import FRAME_SAMPLES, SILENCE, Law

__all__ = ["Playout"]


class Playout:
    """A queue of chunks of any size that gives frames of 160 bytes. The counts are the truth about what was said."""

    __slots__ = ("_chunks", "_end", "_silence", "_start", "law", "played")

    def __init__(self, law: Law) -> None:
        self.law = law
        self.played = 0
        "Samples taken since the start; silence put in between does not count."
        # Where the first chunk starts and the last one ends, in samples played by then.
        self._start = 0
        self._end = 0
        self._silence = SILENCE[law]
        self._chunks: deque[bytes] = deque()

    @property
    def queued(self) -> int:
        """Samples that wait."""
        return self._end - self.played

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._chunks)

    def play(self, audio: bytes) -> None:
        """Add sound at the end."""
        if audio:
            if not self._chunks:
                self._start = self.played
            self._chunks.append(bytes(audio))
            self._end += len(audio)

    def clear(self) -> int:
        """Drop all that waits, and return how many samples that was."""
        dropped, self._end = self.queued, self.played
        self._chunks.clear()
        return dropped

    def change_law(self, law: Law) -> None:
        """Go on in another law; what waits is put into it."""
        if law == self.law:
            return
        waiting = b"".join(self._chunks)[self.played - self._start :]
        self.clear()
        self.play(g711.transcode(waiting, self.law, law))
        self.law = law
        self._silence = SILENCE[law]

    def take(self) -> bytes | None:
        """Return the next frame, the last one filled up with silence, or `None` when nothing waits."""
        if not self._chunks:
            return None
        at = self.played - self._start
        end = at + FRAME_SAMPLES
        chunk = self._chunks[0]
        frame = chunk[at:end]
        if end >= len(chunk):
            self._start += len(chunk)
            self._chunks.popleft()
            if len(frame) < FRAME_SAMPLES:
                return self._join(frame)
        self.played += FRAME_SAMPLES
        return frame

    def _join(self, frame: bytes) -> bytes:
        while len(frame) < FRAME_SAMPLES and self._chunks:
            chunk = self._chunks[0]
            part = chunk[: FRAME_SAMPLES - len(frame)]
            frame += part
            if len(part) == len(chunk):
                self._start += len(chunk)
                self._chunks.popleft()
        self.played += len(frame)
        return frame + self._silence[len(frame) :]
