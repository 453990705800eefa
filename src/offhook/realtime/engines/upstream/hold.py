"""
The sentence that is said while an upstream is opened again: from a WAV file, as each kind of line takes it.

The built-in one, `one_moment.wav`, was made once with the embedded engine's voice (hibari-tts 0.2.1; code and voice are
under Apache-2.0): `Hibari()("One moment, please.", seed=0)`, trimmed and raised as in `engines/local/tts.py`, then
resampled to 8 kHz.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from offhook.audio import g711, wav
from offhook.audio.resample import Resampler
from offhook.realtime.relay_hold import HoldSentence

__all__ = ["HoldSentenceError", "load_hold_sentence"]

NONE = "none"
MAX_S = 15.0
"A sentence, not music: what is longer would still be playing when the answer could."


class HoldSentenceError(ValueError):
    """A file that cannot be said to a caller; the message says why and what would do."""


def load_hold_sentence(path: str) -> HoldSentence | None:
    """
    Return the sentence of a WAV file, `""` for the built-in one, or nothing for `none`.

    The file is 16-bit PCM, mono or stereo, of any rate. Raises `HoldSentenceError`.
    """
    if path == NONE:
        return None
    try:
        data = Path(path).read_bytes() if path else _built_in()
        return _convert(data, Path(path).name if path else "one moment, please")
    except OSError as error:
        raise HoldSentenceError(f"it cannot be read: {error.strerror or error}") from None
    except wav.WavError as error:
        raise HoldSentenceError(str(error)) from None


def _built_in() -> bytes:
    return resources.files(__package__).joinpath("one_moment.wav").read_bytes()


def _convert(data: bytes, title: str) -> HoldSentence:
    samples, rate = wav.read(data)
    if samples.ndim == 2:
        samples = (samples.astype(int).sum(axis=1) // 2).astype("int16")
    if not 0 < len(samples) <= MAX_S * rate:
        seconds = len(samples) / rate if rate else 0.0
        raise HoldSentenceError(f"it lasts {seconds:.1f} s: give a sentence of at most {MAX_S:g} s")
    if not 4000 <= rate <= 192_000:
        raise HoldSentenceError(f"its rate is {rate} Hz: give one from 4000 to 192000")
    line = Resampler(rate, 8000).process(samples, last=True)
    wide = Resampler(rate, 24000).process(samples, last=True)
    sounds = {
        "audio/pcmu": g711.encode(line, "PCMU"),
        "audio/pcma": g711.encode(line, "PCMA"),
        "audio/pcm": wide.astype("<i2").tobytes(),
    }
    return HoldSentence(title, sounds)  # type: ignore[arg-type]
