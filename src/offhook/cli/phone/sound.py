"""Sound as a telephone line carries it: the band, the noise, the frames that go out and the recording of both sides."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offhook.audio.frames import FRAME_SAMPLES, SAMPLE_RATE
from offhook.audio.g711 import Samples

__all__ = ["Frame", "LineOut", "StereoRecording", "Utterance", "level_db", "telephone", "voiced_span"]

Floats = npt.NDArray[np.float64]

_FULL_SCALE = 32768.0
_LOW_HZ, _HIGH_HZ = 300.0, 3400.0
_SPEECH_DB = -20.0
_NOISE_DB = -58.0
"Line noise: some 38 dB below speech, audible in the gaps of a real line and no more."


def level_db(samples: Samples) -> float:
    """Return the root mean square of samples in dB of full scale; -120 for silence."""
    if not len(samples):
        return -120.0
    power = float(np.mean(np.square(samples.astype(np.float64)))) / _FULL_SCALE**2
    return 10 * float(np.log10(max(power, 1e-12)))


def telephone(sound: npt.NDArray[np.float32], rate: int) -> Samples:
    """Return sound at 8 kHz within 300 to 3400 Hz, at the level of telephone speech."""
    import soxr

    narrow: Floats = np.asarray(soxr.resample(sound.astype(np.float64), rate, SAMPLE_RATE), dtype=np.float64)
    narrow = np.convolve(narrow, _band_pass(), mode="same")
    loudness = float(np.sqrt(np.mean(np.square(narrow)))) if len(narrow) else 0.0
    if loudness > 0:
        narrow = narrow * (10 ** (_SPEECH_DB / 20) / loudness)
    return _to_samples(narrow)


def voiced_span(samples: Samples, threshold_db: float = -45.0) -> tuple[int, int]:
    """Return where the first and the last voiced stretch of 5 ms begin and end, in samples; `(0, 0)` for silence."""
    step = SAMPLE_RATE // 200
    voiced = [
        start
        for start in range(0, len(samples), step)
        if level_db(samples[start : start + step]) >= threshold_db
    ]
    return (voiced[0], min(voiced[-1] + step, len(samples))) if voiced else (0, 0)


def _band_pass(taps: int = 129) -> Floats:
    """A windowed-sinc filter for the band of a telephone."""
    n = np.arange(taps) - (taps - 1) / 2
    low, high = 2 * _LOW_HZ / SAMPLE_RATE, 2 * _HIGH_HZ / SAMPLE_RATE
    kernel: Floats = (high * np.sinc(high * n) - low * np.sinc(low * n)) * np.hamming(taps)
    return kernel


def _to_samples(sound: Floats) -> Samples:
    return np.clip(np.round(sound * _FULL_SCALE), -32768, 32767).astype(np.int16)


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """Something to be said, ready to be sent."""

    text: str
    samples: Samples

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """20 ms to send. `voice_ends` is set on the frame in which the last voiced sample of an utterance stands."""

    samples: Samples
    voice_starts: Utterance | None = None
    voice_ends: Utterance | None = None


class LineOut:
    """All that the caller's line sends: line noise, and over it what is said. Pure; one frame for each `next`."""

    def __init__(self, seed: int = 1) -> None:
        generator = np.random.default_rng(seed)
        noise = np.convolve(generator.standard_normal(4 * SAMPLE_RATE), _band_pass(), mode="same")
        noise *= 10 ** (_NOISE_DB / 20) / float(np.sqrt(np.mean(np.square(noise))))
        self._noise = _to_samples(noise)
        self._position = 0
        self._frames: deque[Frame] = deque()

    @property
    def speaking(self) -> bool:
        return bool(self._frames)

    def say(self, utterance: Utterance) -> None:
        """Queue an utterance behind what is still being said."""
        self._frames.extend(_frames(utterance))

    def next(self) -> Frame:
        """Return the next 20 ms."""
        start = self._position
        self._position = (start + FRAME_SAMPLES) % (len(self._noise) - FRAME_SAMPLES)
        noise = self._noise[start : start + FRAME_SAMPLES]
        if not self._frames:
            return Frame(noise)
        frame = self._frames.popleft()
        mixed = frame.samples.astype(np.int32) + noise
        return Frame(np.clip(mixed, -32768, 32767).astype(np.int16), frame.voice_starts, frame.voice_ends)


def _frames(utterance: Utterance) -> Iterator[Frame]:
    samples = utterance.samples
    count = max(1, -(-len(samples) // FRAME_SAMPLES))
    padded = np.zeros(count * FRAME_SAMPLES, dtype=np.int16)
    padded[: len(samples)] = samples
    first, end = voiced_span(samples)
    starts, ends = first // FRAME_SAMPLES, max(0, end - 1) // FRAME_SAMPLES
    for index in range(count):
        piece = padded[index * FRAME_SAMPLES : (index + 1) * FRAME_SAMPLES]
        yield Frame(piece, utterance if index == starts else None, utterance if index == ends else None)


class StereoRecording:
    """
    Both sides of a call on one time line: left what we sent, right what we heard.

    A frame goes where its time says, unless it follows the one before within 60 ms: then it is joined to it, so that
    the jitter of timers makes no clicks.
    """

    _JOIN = SAMPLE_RATE * 60 // 1000

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._pieces: tuple[list[tuple[int, Samples]], list[tuple[int, Samples]]] = ([], [])
        self._ends = [0, 0]

    def sent(self, samples: Samples, at: float) -> None:
        self._add(0, samples, at)

    def heard(self, samples: Samples, at: float) -> None:
        self._add(1, samples, at)

    def samples(self) -> Samples:
        """Return all of it, shape `(n, 2)`."""
        stereo = np.zeros((max(self._ends), 2), dtype=np.int16)
        for channel, pieces in enumerate(self._pieces):
            for position, piece in pieces:
                stereo[position : position + len(piece), channel] = piece
        return stereo

    def _add(self, channel: int, samples: Samples, at: float) -> None:
        position = max(0, round((at - self._started_at) * SAMPLE_RATE))
        end = self._ends[channel]
        if position < end + self._JOIN:
            position = end
        self._pieces[channel].append((position, samples))
        self._ends[channel] = position + len(samples)
