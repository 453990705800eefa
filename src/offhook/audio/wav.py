"""WAV files of 16-bit linear sound, mono or stereo. Opening files by path is the caller's affair."""

from __future__ import annotations

import io
import wave
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from offhook.audio.g711 import Samples

__all__ = ["WavError", "read", "write"]


class WavError(ValueError):
    """The data is not a WAV file that we can read; the message says why and what would do."""


def read(source: bytes | BinaryIO) -> tuple[Samples, int]:
    """
    Return the samples and the rate of a WAV file.

    Mono has shape `(n,)`, stereo `(n, 2)`. Raises `WavError` for anything but 16-bit PCM of one or two channels.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with wave.open(file, "rb") as reader:
            channels, width, rate = reader.getnchannels(), reader.getsampwidth(), reader.getframerate()
            data = reader.readframes(reader.getnframes())
    except (wave.Error, EOFError) as error:
        raise WavError(f"no readable WAV file ({error}): give 16-bit PCM, mono or stereo") from error
    if width != 2 or channels not in (1, 2):
        raise WavError(f"{8 * width}-bit sound of {channels} channels: give 16-bit PCM, mono or stereo")
    samples = np.frombuffer(data[: len(data) // (2 * channels) * 2 * channels], dtype="<i2").astype(np.int16)
    return (samples if channels == 1 else samples.reshape(-1, 2)), rate


def write(samples: npt.NDArray[np.int16], rate: int, target: BinaryIO | None = None) -> bytes:
    """
    Return samples as a WAV file, `(n,)` as mono and `(n, 2)` as stereo.

    With a `target` the file is written there as well.
    """
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] not in (1, 2)):
        raise ValueError(f"samples of shape {samples.shape}: give (n,) or (n, 2)")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(np.ascontiguousarray(samples).astype("<i2").tobytes())
    data = file.getvalue()
    if target is not None:
        target.write(data)
    return data
