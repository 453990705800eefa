"""
Sentences that are said when an engine cannot: from WAV files, as each kind of line takes them.

The built-in ones were made once with the embedded engine's voice (hibari-tts 0.2.1, Apache-2.0 for code and voice):
`Hibari()("One moment, please.", seed=0)` and `Hibari()("Sorry, something went wrong. Please call again.", seed=0)`,
trimmed and raised as in `engines/local/tts.py`, then resampled to 8 kHz.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from offhook.audio import g711, wav
from offhook.audio.resample import Resampler
from offhook.realtime.relay_hold import HoldSentence

__all__ = ["HoldSentenceError", "load_failure_sentence", "load_hold_sentence"]

NONE = "none"
MAX_S = 15.0
"A sentence, not music: what is longer would still be playing when the answer could."


class HoldSentenceError(ValueError):
    """A file that cannot be said to a caller; the message says why and what would do."""


def load_hold_sentence(path: str) -> HoldSentence | None:
    """
    Return what is said while an upstream is opened again: from a WAV file, built in (`""`), or nothing (`none`).

    The file is 16-bit PCM, mono or stereo, of any rate. Raises `HoldSentenceError`.
    """
    return _load(path, "one_moment.wav", "one moment, please")


def load_failure_sentence(path: str) -> HoldSentence | None:
    """Return what is said before a call ends whose engine has failed; as `load_hold_sentence`."""
    return _load(path, "sorry.wav", "sorry, something went wrong; please call again")


def _load(path: str, built_in: str, title: str) -> HoldSentence | None:
    if path == NONE:
        return None
    try:
        data = Path(path).read_bytes() if path else _built_in(built_in)
        return _convert(data, Path(path).name if path else title)
    except OSError as error:
        raise HoldSentenceError(f"it cannot be read: {error.strerror or error}") from None
    except wav.WavError as error:
        raise HoldSentenceError(str(error)) from None


def _built_in(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


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
