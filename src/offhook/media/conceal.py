"""
Concealing lost frames: the last pitch period goes on and fades (after ITU-T G.711 appendix I).

Only here is sound decoded on the way in, and only when a frame is missing. Unlike the appendix, nothing that
was already played is touched, so there is no delay; after 60 ms there is silence, and silence costs nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from offhook.audio import g711
from offhook.audio.frames import FRAME_SAMPLES, SILENCE, Law

__all__ = ["CONCEALED_FRAMES", "Concealer"]

CONCEALED_FRAMES: Final = 3
_SHORTEST: Final = 40
"""Pitch periods from 5 ms (200 Hz) ..."""
_LONGEST: Final = 120
"""... to 15 ms (66 Hz)."""
_TEMPLATE: Final = FRAME_SAMPLES
_OVERLAP: Final = 32
"""4 ms in which returning sound is mixed with what was made up."""

_LENGTH: Final = CONCEALED_FRAMES * FRAME_SAMPLES
# Full for 10 ms, then down by a fifth every 10 ms (appendix I.2.7).
_GAIN: Final = np.concatenate([np.ones(80), np.linspace(1.0, 0.0, _LENGTH - 80), np.zeros(_OVERLAP)]).astype(
    np.float32
)
_NO_WAVE: Final = np.zeros(_LENGTH + _OVERLAP, dtype=np.float32)
_FADE_IN: Final = np.linspace(0.0, 1.0, _OVERLAP, endpoint=False).astype(np.float32)


class Concealer:
    """
    Makes up sound for frames that are missing.

    For each of these call `conceal`; for the first frame that comes after any, `recover`.
    """

    __slots__ = ("_audible", "_law", "_lost", "_silence", "_wave", "made_up")

    def __init__(self, law: Law) -> None:
        self.made_up = 0
        "Frames that were not silence."
        self._law = law
        self._silence = SILENCE[law]
        self._wave = _NO_WAVE
        self._audible = False
        self._lost = 0

    def conceal(self, before: bytes, last: bytes) -> bytes:
        """Return something for a frame that is missing after these two, the last that were heard."""
        lost = self._lost
        self._lost = lost + 1
        if lost == 0:
            self._audible = last != self._silence
            if self._audible:
                self._wave = _continue(g711.decode(before + last, self._law)) * _GAIN
        if lost >= CONCEALED_FRAMES or not self._audible:
            return self._silence
        self.made_up += 1
        start = lost * FRAME_SAMPLES
        return self._encode(self._wave[start : start + FRAME_SAMPLES])

    def pause(self) -> bytes:
        """Return silence: the peer stopped of itself, and so it is with what is missing from here on."""
        self._lost = CONCEALED_FRAMES
        self._audible = False
        return self._silence

    def recover(self, frame: bytes) -> bytes:
        """Return the first frame after a loss, faded in from what was made up."""
        lost, self._lost = min(self._lost, CONCEALED_FRAMES), 0
        if not lost or not self._audible:
            return frame
        start = lost * FRAME_SAMPLES
        tail = self._wave[start : start + _OVERLAP]
        head = g711.decode(frame[:_OVERLAP], self._law)
        return self._encode(head * _FADE_IN + tail * (1 - _FADE_IN)) + frame[_OVERLAP:]

    def _encode(self, wave: np.typing.NDArray[np.float32]) -> bytes:
        return g711.encode(np.clip(wave, -32768, 32767).astype(np.int16), self._law)


def _continue(history: g711.Samples) -> np.typing.NDArray[np.float32]:
    """Return what comes after 40 ms of sound if its last pitch period repeats."""
    sound = history.astype(np.float32)
    period = _pitch(sound)
    cycle = sound[-period:].copy()
    # The end of the cycle is led over into its own beginning, so that its repetition does not click.
    overlap = period // 4
    rising = np.linspace(0.0, 1.0, overlap, endpoint=False, dtype=np.float32)
    before = sound[-period - overlap : -period]
    cycle[-overlap:] = cycle[-overlap:] * (1 - rising) + before * rising
    repeats = -(-(_LENGTH + _OVERLAP) // period)
    return np.tile(cycle, repeats)[: _LENGTH + _OVERLAP]


def _pitch(sound: np.typing.NDArray[np.float32]) -> int:
    """Return the period at which the last 20 ms are most like what came before."""
    template = sound[-_TEMPLATE:]
    past = sound[-_TEMPLATE - _LONGEST : -_SHORTEST]
    windows = np.lib.stride_tricks.sliding_window_view(past, _TEMPLATE)
    likeness = windows @ template
    energy = np.einsum("ij,ij->i", windows, windows) + 1.0
    best = int(np.argmax(likeness * np.abs(likeness) / energy))
    return _LONGEST - best
