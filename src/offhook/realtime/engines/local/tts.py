"""Text to speech by hibari, a sentence at a time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import soxr

from . import sound
from .child import Link
from .sound import Floats
from .wire import Message

__all__ = ["RATE", "TtsService", "trim"]

RATE = 24000
_GAIN = 2.0
"""The voice is made some 6 dB below the usual level of a telephone line; peaks stay below full scale."""
_QUIET = 0.006
_LEAD_S = 0.005
_TAIL_S = 0.22
"""
What is left of the silence around a sentence; the voice makes 0.3 s before it and 0.5 s after it. A caller waits for
what is left before the first one.
"""


def trim(samples: Floats) -> Floats:
    """Return a sentence without most of the silence before and after it."""
    loud = np.flatnonzero(np.abs(samples) > _QUIET)
    if not len(loud):
        return samples[:0]
    return samples[max(0, loud[0] - int(_LEAD_S * RATE)) : loud[-1] + int(_TAIL_S * RATE)]


class TtsService:
    """The worker's side: `speak` in; `audio` for each piece as soon as it is made, then `done`, out."""

    def __init__(self, model: str | None) -> None:
        from hibari import Hibari

        self._voice = Hibari(model=model, threads=1)
        for text in (
            "Hello.",
            "It is half past nine on Tuesday, and the number is 555 0134.",
            "Hello again.",
        ):
            self._voice(text, seed=0)

    def handle(self, messages: list[Message], link: Link) -> None:
        for header, _ in messages:
            link.send(self._speak(header, link))
            link.forget(header["job"])

    def _speak(self, header: dict[str, Any], link: Link) -> dict[str, Any]:
        began = time.monotonic()
        job = header["job"]
        try:
            # Long text is made in pieces, and a cancel is looked for between them.
            for phonemes in self._voice.phonemize(header["text"]):
                if link.is_cancelled(job):
                    break
                samples = self._voice.from_phonemes(phonemes, speed=header["speed"], seed=0)
                if audio := self._finish(samples, header["format"]):
                    link.send({"type": "audio", "job": job}, audio)
        except Exception as exc:  # whatever the library raises: this sentence fails, the worker goes on
            return {"type": "error", "job": job, "code": "speech_failed", "message": str(exc)}
        return {"type": "done", "job": job, "ms": (time.monotonic() - began) * 1000}

    @staticmethod
    def _finish(samples: Floats, audio_format: Any) -> bytes:
        finished = trim(samples) * np.float32(_GAIN)
        rate = sound.rate_of(audio_format)
        return sound.encode(soxr.resample(finished, RATE, rate) if rate != RATE else finished, audio_format)
