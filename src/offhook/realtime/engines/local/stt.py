"""Speech to text by Whisper (CTranslate2), one utterance at a time."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from . import sound
from .bpe import Vocabulary
from .child import Link
from .log_mel import RATE, log_mel
from .sound import Floats
from .wire import Message

__all__ = ["SttService", "Transcription", "UnknownLanguageError", "Whisper"]

_LONGEST_S = 30.0
"""What the model can look at."""
_PIECE_S = 27.0
"""Longer utterances are cut before this."""
_TOKENS_PER_SECOND = 8
_TOKENS_AT_LEAST = 24
"""The output's cap for a duration; people say some four to five tokens a second."""
_MAX_COMPRESSION = 1.9
_MIN_SCORE = -0.75
_NO_SPEECH = 0.6
_NO_SPEECH_SCORE = -1.0
_PROMPT_TOKENS = 200


class UnknownLanguageError(ValueError):
    """The model does not know a language by this name."""


@dataclass(frozen=True, slots=True)
class Transcription:
    text: str
    score: float
    "Mean log probability of a token: 0 is certain, below -0.75 is poor."
    redone: bool
    "Whether the short window was not good enough."


class Whisper:
    """
    The model. Not safe for threads.

    Whisper was trained on windows of 30 s and takes the same time for a word as for 30 s of them. It is shown a
    window of 10 s instead, or 3 s more than the utterance, which costs about a quarter. Now and then it loops in a
    short window, so an answer that is too long, repeats itself or is improbable is made again with the window
    it is used to.
    """

    def __init__(self, directory: Path) -> None:
        import ctranslate2

        self._ct2 = ctranslate2
        self._model = ctranslate2.models.Whisper(
            str(directory), device="cpu", compute_type="int8", inter_threads=1, intra_threads=1
        )
        self._vocabulary = Vocabulary.load(directory)

    def transcribe(
        self, samples: Floats, language: str | None = None, prompt: str | None = None
    ) -> Transcription:
        """Put 16 kHz sound into words. `language` is an ISO 639-1 code. Raises `UnknownLanguageError`."""
        tokens = self._prompt(language or "en", prompt)
        pieces = [self._transcribe(piece, tokens) for piece in split(samples)]
        return Transcription(
            " ".join(piece.text for piece in pieces if piece.text),
            min((piece.score for piece in pieces), default=0.0),
            any(piece.redone for piece in pieces),
        )

    def warm(self) -> None:
        """Run once on a hum: the first run allocates, and a caller's first words should not wait for that."""
        hum = np.sin(np.arange(RATE, dtype=np.float32) / 20) * np.float32(0.01)
        self._decode(hum, 10.0, self._prompt("en", None))

    def _prompt(self, language: str, prompt: str | None) -> list[int]:
        code = f"<|{language.lower().replace('_', '-').split('-')[0]}|>"
        if code not in self._vocabulary or (code != "<|en|>" and not self._model.is_multilingual):
            raise UnknownLanguageError(
                f"language: this Whisper does not know {language!r}; use an ISO 639-1 code such as 'en'"
            )
        number = self._vocabulary.number
        tokens: list[int] = []
        if prompt and prompt.strip():
            earlier = self._vocabulary.encode(" " + prompt.strip())
            tokens += [number("<|startofprev|>"), *earlier[-_PROMPT_TOKENS:]]
        tokens.append(number("<|startoftranscript|>"))
        if self._model.is_multilingual:
            tokens += [number(code), number("<|transcribe|>")]
        tokens.append(number("<|notimestamps|>"))
        return tokens

    def _transcribe(self, samples: Floats, prompt: list[int]) -> Transcription:
        duration = len(samples) / RATE
        window = min(_LONGEST_S, max(10.0, np.ceil(duration + 3.0)))
        first, good = self._decode(samples, window, prompt)
        if good or window == _LONGEST_S:
            return first
        second, good = self._decode(samples, _LONGEST_S, prompt)
        best = second if good or second.score >= first.score else first
        return Transcription(best.text, best.score, True)

    def _decode(self, samples: Floats, window: float, prompt: list[int]) -> tuple[Transcription, bool]:
        cap = int(_TOKENS_AT_LEAST + _TOKENS_PER_SECOND * len(samples) / RATE)
        features = self._ct2.StorageView.from_array(log_mel(samples, window, self._model.n_mels)[None])
        result = self._model.generate(
            features,
            [prompt],
            beam_size=5,
            max_length=min(448, len(prompt) + cap),
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        found = result.sequences_ids[0]
        text = self._vocabulary.decode(found).strip()
        # CTranslate2 divides by the tokens without the end; Whisper's own measure, which the limit is for, counts it.
        score = result.scores[0] * len(found) / (len(found) + 1)
        if result.no_speech_prob > _NO_SPEECH and score < _NO_SPEECH_SCORE:
            return Transcription("", score, False), True
        good = len(found) < cap and compression(text) <= _MAX_COMPRESSION and score >= _MIN_SCORE
        return Transcription(text, score, False), good


def compression(text: str) -> float:
    """Return how many times shorter the text is when packed; words that loop pack well."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def split(samples: Floats) -> list[Floats]:
    """Cut sound that is too long for the model, in the quietest tenth of a second of each piece's last quarter."""
    pieces: list[Floats] = []
    longest, step = int(_PIECE_S * RATE), RATE // 10
    while len(samples) > longest:
        tail = samples[longest * 3 // 4 : longest]
        steps = tail[: len(tail) // step * step].reshape(-1, step)
        cut = longest * 3 // 4 + int(np.argmin((steps**2).sum(axis=1))) * step + step // 2
        pieces.append(samples[:cut])
        samples = samples[cut:]
    return [*pieces, samples]


class SttService:
    """The worker's side: `transcribe` in; `done` with the text, or `error`, out."""

    def __init__(self, directory: str) -> None:
        self._whisper = Whisper(Path(directory))
        self._whisper.warm()

    def handle(self, messages: list[Message], link: Link) -> None:
        for header, body in messages:
            if not link.is_cancelled(header["job"]):
                link.send(self._transcribe(header, body))
            else:
                link.send({"type": "done", "job": header["job"], "text": "", "seconds": 0.0, "ms": 0.0})
            link.forget(header["job"])

    def _transcribe(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        began = time.monotonic()
        try:
            samples = sound.decode(body, header["format"])
            seconds = len(samples) / sound.rate_of(header["format"])
            floats = samples.astype(np.float32) / np.float32(32768)
            result = self._whisper.transcribe(
                soxr.resample(floats, sound.rate_of(header["format"]), RATE),
                header["language"],
                header["prompt"],
            )
        except UnknownLanguageError as exc:
            return {
                "type": "error",
                "job": header["job"],
                "code": "unsupported_language",
                "message": str(exc),
            }
        except Exception as exc:  # whatever the library raises: this utterance fails, the worker goes on
            return {
                "type": "error",
                "job": header["job"],
                "code": "transcription_failed",
                "message": str(exc),
            }
        return {
            "type": "done",
            "job": header["job"],
            "text": result.text,
            "seconds": seconds,
            "ms": (time.monotonic() - began) * 1000,
            "score": result.score,
            "redone": result.redone,
        }
