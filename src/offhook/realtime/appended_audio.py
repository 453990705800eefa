"""What a client appends (API row E23), on its way to the engine."""

from __future__ import annotations

from offhook.realtime.engine import AudioFormat
from offhook.realtime.sideband_audio import AudioConverter, bytes_per_ms

__all__ = ["FRAME_MS", "AppendedAudio"]

FRAME_MS = 20
AT_ONCE_MS = 500
"How much is handed over at a time: a client may append five minutes, and other sessions wait meanwhile."


class AppendedAudio:
    """
    Takes audio of any length in the client's format, and gives 20 ms frames in the engine's.

    `take` gives only some of what is there: call it until `waiting` is false, other work in between.
    """

    def __init__(self, target: AudioFormat) -> None:
        self._target = target
        self._frame = FRAME_MS * bytes_per_ms(target)
        self._source = target
        self._converter: AudioConverter | None = None
        "From the first sound of a turn to its end."
        self._given = b""
        self._taken = 0
        self._rest = b""

    @property
    def waiting(self) -> bool:
        """Whether there is more to take."""
        return self._taken < len(self._given)

    def add(self, audio: bytes, source: AudioFormat) -> None:
        """Append whole samples. What was appended in another format must have been taken."""
        if source != self._source:
            self._rest += self._end_conversion()
            self._source = source
        self._given = self._given[self._taken :] + audio
        self._taken = 0

    def take(self) -> list[bytes]:
        """Return the next frames, at most half a second of them."""
        if self._converter is None:
            self._converter = AudioConverter(self._source, self._target)
        end = self._taken + AT_ONCE_MS * bytes_per_ms(self._source)
        piece = self._given[self._taken : end]
        self._taken = end
        if not self.waiting:
            self._given, self._taken = b"", 0
        return self._cut(self._converter.process(piece))

    def finish(self) -> list[bytes]:
        """The client ends its turn: return what is left, with silence up to a whole frame."""
        frames = self._cut(self._end_conversion())
        if self._rest:
            frames.append(self._rest + _SILENCE[self._target] * (self._frame - len(self._rest)))
            self._rest = b""
        return frames

    def clear(self) -> None:
        """Forget what was not taken."""
        self._converter = None
        self._given, self._taken, self._rest = b"", 0, b""

    def _end_conversion(self) -> bytes:
        """Return what is left in the converter."""
        converter, self._converter = self._converter, None
        return converter.process(b"", last=True) if converter is not None else b""

    def _cut(self, audio: bytes) -> list[bytes]:
        if len(audio) == self._frame and not self._rest:
            return [audio]
        audio = self._rest + audio
        whole = len(audio) - len(audio) % self._frame
        self._rest = audio[whole:]
        return [audio[start : start + self._frame] for start in range(0, whole, self._frame)]


_SILENCE: dict[AudioFormat, bytes] = {"audio/pcmu": b"\xff", "audio/pcma": b"\xd5", "audio/pcm": b"\0"}
