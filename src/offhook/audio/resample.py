"""A change of sample rate that goes on from chunk to chunk."""

from __future__ import annotations

import numpy as np
import soxr

from offhook.audio.g711 import Samples

__all__ = ["Resampler"]


class Resampler:
    """
    One stream's change of rate, with an anti-alias filter (soxr).

    The filter looks ahead, so the first chunks give fewer samples than their share; the last call, with
    `last=True`, gives the rest. After that the object is done: make a new one for the next stream.
    """

    def __init__(self, rate_in: int, rate_out: int, *, quality: str = "HQ") -> None:
        self.rate_in = rate_in
        self.rate_out = rate_out
        self._stream = (
            soxr.ResampleStream(rate_in, rate_out, 1, dtype="int16", quality=quality)
            if rate_in != rate_out
            else None
        )

    def process(self, samples: Samples, last: bool = False) -> Samples:
        """Return what is ready after these samples; possibly nothing."""
        if self._stream is None:
            return samples
        ready: Samples = self._stream.resample_chunk(np.ascontiguousarray(samples), last=last)
        return ready
