"""A session's audio formats, and linear sound at the rate that a model wants."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from offhook.audio import g711

from ...engine import AudioFormat

__all__ = ["Floats", "bytes_per_second", "decode", "encode", "rate_of"]

Floats = npt.NDArray[np.float32]
"""Linear sound between -1 and 1."""


def rate_of(audio_format: AudioFormat) -> int:
    """Return the format's samples per second."""
    return 24000 if audio_format == "audio/pcm" else 8000


def bytes_per_second(audio_format: AudioFormat) -> int:
    return 48000 if audio_format == "audio/pcm" else 8000


def decode(audio: bytes, audio_format: AudioFormat) -> g711.Samples:
    """Return the audio as linear samples at its own rate. Half a sample at the end is dropped."""
    if audio_format == "audio/pcm":
        return np.frombuffer(audio, dtype="<i2", count=len(audio) // 2).astype(np.int16, copy=False)
    return g711.decode(audio, g711.law_of(audio_format))


def encode(samples: Floats, audio_format: AudioFormat) -> bytes:
    """Return linear sound at the format's rate as the format's bytes; what is too loud is clipped."""
    pcm = (np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
    return (
        pcm.astype("<i2").tobytes()
        if audio_format == "audio/pcm"
        else g711.encode(pcm, g711.law_of(audio_format))
    )
