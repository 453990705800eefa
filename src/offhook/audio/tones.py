"""Tones: DTMF digits by their two frequencies (ITU-T Q.23), and plain sines."""

from __future__ import annotations

from typing import Final

import numpy as np

from offhook.audio.frames import SAMPLE_RATE
from offhook.audio.g711 import Samples

__all__ = ["DTMF", "dtmf", "silence", "tone"]

DTMF: Final[dict[str, tuple[int, int]]] = {
    key: (low, high)
    for low, row in ((697, "123A"), (770, "456B"), (852, "789C"), (941, "*0#D"))
    for high, key in zip((1209, 1336, 1477, 1633), row, strict=True)
}
"""The low and high frequency of each key, in Hz."""

_RAMP_S: Final = 0.003


def tone(
    frequencies: float | tuple[float, ...],
    duration_ms: float,
    *,
    level: float = 0.25,
    rate: int = SAMPLE_RATE,
) -> Samples:
    """
    Return the sum of sines, each with the given share of full scale, with 3 ms ramps against clicks.

    `level` times the number of frequencies must not exceed 1.
    """
    several = frequencies if isinstance(frequencies, tuple) else (frequencies,)
    count = round(duration_ms * rate / 1000)
    time = np.arange(count) / rate
    wave = sum((np.sin(2 * np.pi * frequency * time) for frequency in several), np.zeros(count))
    ramp = np.minimum(1.0, np.minimum(time, time[::-1]) / _RAMP_S)
    samples: Samples = np.clip(np.round(wave * ramp * level * 32767), -32768, 32767).astype(np.int16)
    return samples


def dtmf(key: str, duration_ms: float = 100, *, level: float = 0.2, rate: int = SAMPLE_RATE) -> Samples:
    """Return the tone of one key, `0`-`9`, `*`, `#`, `A`-`D`. Raises `ValueError` for anything else."""
    if (pair := DTMF.get(key.upper())) is None:
        raise ValueError(f"{key!r} is no DTMF key: use 0-9, *, #, A-D")
    return tone((float(pair[0]), float(pair[1])), duration_ms, level=level, rate=rate)


def silence(duration_ms: float, *, rate: int = SAMPLE_RATE) -> Samples:
    """Return zeros."""
    return np.zeros(round(duration_ms * rate / 1000), dtype=np.int16)
