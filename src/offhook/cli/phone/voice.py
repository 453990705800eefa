"""What the caller says, made ready before dialling: sentences by the local text-to-speech, or WAV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from offhook.audio import wav
from offhook.audio.frames import SAMPLE_RATE

from .sound import Utterance, telephone

__all__ = ["VoiceError", "read_wav", "synthesise"]

_DEEPER = 0.9
"The package has one voice, and the agent has it too. Played this much slower, it is another person's."


class VoiceError(Exception):
    """There is no text-to-speech here; the message says how to get it."""


def synthesise(sentences: Sequence[str]) -> list[Utterance]:
    """Return each sentence as it would come over a telephone line. Raises `VoiceError`."""
    try:
        from hibari import Hibari
    except ImportError:
        raise VoiceError(
            "--say needs the local text-to-speech: pip install 'offhook[local]' (--wav and --digits work without it)"
        ) from None
    speech = Hibari()
    rate = round(speech.sample_rate * _DEEPER)
    return [
        # The seed makes the same sentence the same sound on every run.
        Utterance(
            text, telephone(np.asarray(speech(text, speed=1 / _DEEPER, seed=1), dtype=np.float32), rate)
        )
        for text in sentences
    ]


def read_wav(path: Path) -> Utterance:
    """Return a WAV file as it would come over a telephone line. Raises `OSError` and `offhook.audio.wav.WavError`."""
    samples, rate = wav.read(path.read_bytes())
    if samples.ndim == 2:
        samples = samples.mean(axis=1).astype(np.int16)
    if rate == SAMPLE_RATE:
        return Utterance(f"({path.name})", samples)  # as it is: somebody may want to send exactly this
    return Utterance(f"({path.name})", telephone((samples / 32768.0).astype(np.float32), rate))
