"""The sound of `response.output_audio.delta`, as the phone takes it."""

from __future__ import annotations

import base64
import binascii

from offhook.realtime.engine import AudioFormat
from offhook.realtime.sideband_audio import AudioConverter, sample_bytes

__all__ = ["DeltaAudio"]


class DeltaAudio:
    """One answer after the other. Deltas may end in the middle of a sample; the rest comes with the next."""

    def __init__(self, source: AudioFormat, target: AudioFormat) -> None:
        self._converter = AudioConverter(source, target)
        self._width = sample_bytes(source)
        self._rest = b""
        self._item: object = None

    def take(self, delta: str, item: object = None) -> bytes:
        """
        Return what is ready after this delta of an item. What is not base64 has no sound.

        An item that was cut off has no end: half a sample of it would make noise of all that follows.
        """
        if item != self._item:
            self.finish()
            self._item = item
        try:
            audio = self._rest + base64.b64decode(delta)
        except (binascii.Error, ValueError):
            return b""
        whole = len(audio) - len(audio) % self._width
        self._rest = audio[whole:]
        return self._converter.process(audio[:whole]) if whole else b""

    def finish(self) -> bytes:
        """The answer is over: return what the filter still held, and start afresh."""
        converter, self._rest = self._converter, b""
        self._converter = AudioConverter(converter.source, converter.target)
        return converter.process(b"", last=True)
