"""Sound waiting to be sent, in the codec of the call."""

from __future__ import annotations

from collections import deque

from offhook.audio import g711
from offhook.audio.frames import FRAME_SAMPLES, SILENCE, Law

__all__ = ["Playout"]


class Playout:
    """A queue of chunks of any size that gives frames of 160 bytes. The counts are the truth about what was said."""

    __slots__ = ("_at", "_chunks", "_silence", "law", "played", "queued")

    def __init__(self, law: Law) -> None:
        self.law = law
        self.played = 0
        "Samples taken since the start; silence put in between does not count."
        self.queued = 0
        "Samples that wait."
        self._silence = SILENCE[law]
        self._chunks: deque[bytes] = deque()
        self._at = 0

    def play(self, audio: bytes) -> None:
        """Add sound at the end."""
        if audio:
            self._chunks.append(bytes(audio))
            self.queued += len(audio)

    def clear(self) -> int:
        """Drop all that waits, and return how many samples that was."""
        dropped, self.queued, self._at = self.queued, 0, 0
        self._chunks.clear()
        return dropped

    def change_law(self, law: Law) -> None:
        """Go on in another law; what waits is put into it."""
        if law == self.law:
            return
        waiting = b"".join(self._chunks)[self._at :]
        self._chunks.clear()
        self._at = 0
        if waiting:
            self._chunks.append(g711.transcode(waiting, self.law, law))
        self.law = law
        self._silence = SILENCE[law]

    def take(self) -> bytes:
        """Return the next frame, filled up with silence if it is the last. Call it only when `queued` is not 0."""
        at = self._at
        end = at + FRAME_SAMPLES
        chunk = self._chunks[0]
        frame = chunk[at:end]
        if end < len(chunk):
            self._at = end
        else:
            self._chunks.popleft()
            self._at = 0
            if len(frame) < FRAME_SAMPLES:
                return self._join(frame)
        self.played += FRAME_SAMPLES
        self.queued -= FRAME_SAMPLES
        return frame

    def _join(self, frame: bytes) -> bytes:
        while len(frame) < FRAME_SAMPLES and self._chunks:
            chunk = self._chunks[0]
            part = chunk[: FRAME_SAMPLES - len(frame)]
            frame += part
            if len(part) < len(chunk):
                self._at = len(part)
            else:
                self._chunks.popleft()
        self.played += len(frame)
        self.queued -= len(frame)
        return frame + self._silence[len(frame) :]
