"""The picture of sound that Whisper looks at."""

from __future__ import annotations

import functools

import numpy as np

from .sound import Floats

__all__ = ["FRAMES_PER_SECOND", "RATE", "log_mel"]

RATE = 16000
FRAMES_PER_SECOND = 100
_FFT = 400
_HOP = 160
_WINDOW = np.hanning(_FFT + 1)[:-1].astype(np.float32)


@functools.lru_cache(maxsize=2)
def _mel_filters(bands: int) -> Floats:
    """Return the Slaney filter bank, of shape (bands, bins): linear below 1 kHz, logarithmic above."""
    mels = np.linspace(0.0, 45.245640471924965, bands + 2)
    linear = mels * 200.0 / 3
    hertz = np.where(mels < 15.0, linear, 1000.0 * np.exp(np.log(6.4) / 27.0 * (mels - 15.0)))
    ramps = hertz[:, None] - np.fft.rfftfreq(_FFT, 1 / RATE)[None, :]
    widths = np.diff(hertz)[:, None]
    filters = np.maximum(0.0, np.minimum(-ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]))
    normed: Floats = (filters * (2.0 / (hertz[2:] - hertz[:-2]))[:, None]).astype(np.float32)
    return normed


def log_mel(samples: Floats, window_s: float, bands: int = 80) -> Floats:
    """
    Return the log-mel spectrogram of 16 kHz sound, of shape (bands, 100 * window_s).

    What the sound does not fill is padded with the spectrogram's own floor. (Zeros would be far louder than
    silence there, and Whisper would hear things in them.)
    """
    padded = np.pad(
        samples, (_FFT // 2, _FFT // 2 + _HOP), mode="reflect" if len(samples) > _FFT else "constant"
    )
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP]
    power = np.abs(np.fft.rfft(frames * _WINDOW, axis=1)).astype(np.float32) ** 2
    logs = np.log10(np.maximum(_mel_filters(bands) @ power.T, 1e-10))
    logs = (np.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0
    count = int(window_s * FRAMES_PER_SECOND)
    picture = np.full((bands, count), logs.min(), np.float32)
    picture[:, : logs.shape[1]] = logs[:, :count]
    return picture
