"""
Audio between the session's format and the one that clients asked for.

A call's sound is G.711 as the SDP negotiated it; `audio.input.format` and `audio.output.format` say what
clients on the WebSocket get and send (API rows E04 and G23). A session without a call has the format that suits both.
"""

from __future__ import annotations

import numpy as np

from offhook.audio import g711
from offhook.audio.resample import Resampler
from offhook.realtime.engine import AudioFormat

__all__ = ["AudioConverter", "bytes_per_ms", "common_format", "convert", "sample_bytes"]


def sample_bytes(audio_format: AudioFormat) -> int:
    return 2 if audio_format == "audio/pcm" else 1


def bytes_per_ms(audio_format: AudioFormat) -> int:
    return 48 if audio_format == "audio/pcm" else 8


def common_format(hears: AudioFormat, speaks: AudioFormat) -> AudioFormat:
    """Return the format in which least is converted, and nothing lost, when a client sends one and gets the other."""
    return "audio/pcm" if speaks == "audio/pcm" else hears


class AudioConverter:
    """One stream's change of format; chunks go in order."""

    def __init__(self, source: AudioFormat, target: AudioFormat) -> None:
        self.source = source
        self.target = target
        rates = (bytes_per_ms(source) // sample_bytes(source), bytes_per_ms(target) // sample_bytes(target))
        # A telephone's band holds nothing that a better filter would keep.
        self._resampler = (
            None if rates[0] == rates[1] else Resampler(rates[0] * 1000, rates[1] * 1000, quality="MQ")
        )

    def process(self, audio: bytes, last: bool = False) -> bytes:
        """Return what is ready after this audio. With `last`, the rest; then the object is done."""
        if self.source == self.target:
            return audio
        if self._resampler is None:
            return g711.transcode(audio, g711.law_of(self.source), g711.law_of(self.target))
        samples = self._resampler.process(_decode(audio, self.source), last)
        return (
            samples.tobytes()
            if self.target == "audio/pcm"
            else g711.encode(samples, g711.law_of(self.target))
        )


def convert(audio: bytes, source: AudioFormat, target: AudioFormat) -> bytes:
    """Return a whole piece of audio in another format."""
    return AudioConverter(source, target).process(audio, last=True)


def _decode(audio: bytes, source: AudioFormat) -> g711.Samples:
    if source == "audio/pcm":
        return np.frombuffer(audio, dtype="<i2").astype(np.int16, copy=False)
    return g711.decode(audio, g711.law_of(source))
