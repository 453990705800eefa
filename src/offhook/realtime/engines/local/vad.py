"""Voice activity by Silero VAD, for all calls of a node in one worker."""

from __future__ import annotations

import struct
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from offhook.audio import g711
from offhook.audio.resample import Resampler

from ...engine import AudioFormat
from . import weights
from .child import Link
from .sound import Floats
from .wire import Message

__all__ = ["CHUNK_MS", "FED", "HEARD", "SileroVad", "VadService"]

CHUNK_MS = 32
FED = struct.Struct("<IH")
"""Before each piece of audio in a `feed` message: stream, and how many bytes follow."""
HEARD = struct.Struct("<Ifd")
"""One result in a `heard` message: stream, probability of speech, end of the chunk in ms."""

_MAX_BATCH = 64
"""Chunks in one run: about 2 ms of work."""


class SileroVad:
    """
    The model: 32 ms of sound of each of many streams in, a probability of speech for each out.

    It takes 8 kHz and 16 kHz. A stream's state is an array of shape (2, 128) and the last samples of its chunk before.
    """

    def __init__(self) -> None:
        import onnxruntime

        weights.check_sha256()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._model = onnxruntime.InferenceSession(
            str(weights.VAD_MODEL), options, providers=["CPUExecutionProvider"]
        )

    @staticmethod
    def chunk_samples(rate: int) -> int:
        return rate * CHUNK_MS // 1000

    @staticmethod
    def context_samples(rate: int) -> int:
        """How many samples of the chunk before go before each chunk."""
        return rate // 250

    def run(self, chunks: Floats, state: Floats, rate: int) -> tuple[Floats, Floats]:
        """
        Take chunks of shape (streams, context + chunk) and states of shape (2, streams, 128).

        Returns the probabilities, one for each stream, and the new states.
        """
        probabilities, state = self._model.run(
            None, {"input": chunks, "state": state, "sr": np.array(rate, dtype=np.int64)}
        )
        return probabilities[:, 0], state


class _Stream:
    """One call's sound on its way into chunks."""

    def __init__(self, number: int, audio_format: AudioFormat, at_ms: float) -> None:
        self.number = number
        self.end_ms = at_ms
        self.rate = 16000 if audio_format == "audio/pcm" else 8000
        self.state: Floats = np.zeros((2, 128), np.float32)
        self._law = None if audio_format == "audio/pcm" else g711.law_of(audio_format)
        self._resampler = Resampler(24000, 16000, quality="LQ") if self._law is None else None
        # In bytes as they came for G.711, decoded a chunk at a time; in samples for PCM.
        self._waiting = bytearray()
        self._context: Floats = np.zeros(SileroVad.context_samples(self.rate), np.float32)
        self._chunk = SileroVad.chunk_samples(self.rate)

    def feed(self, audio: memoryview) -> None:
        if self._resampler is None:
            self._waiting += audio
        else:
            samples = np.frombuffer(audio, dtype="<i2").astype(np.int16, copy=False)
            self._waiting += self._resampler.process(samples).tobytes()

    @property
    def whole(self) -> bool:
        """Whether a chunk is complete."""
        return len(self._waiting) >= (self._chunk if self._law else 2 * self._chunk)

    def take(self) -> Floats:
        """Return the next chunk with its context before it."""
        size = self._chunk if self._law else 2 * self._chunk
        piece = bytes(self._waiting[:size])
        del self._waiting[:size]
        samples = g711.decode(piece, self._law) if self._law else np.frombuffer(piece, np.int16)
        chunk = samples.astype(np.float32) / np.float32(32768)
        whole = np.concatenate((self._context, chunk))
        self._context = chunk[-len(self._context) :]
        self.end_ms += CHUNK_MS
        return whole


class VadService:
    """The worker's side: messages `open`, `close` and `feed` in, `heard` out."""

    def __init__(self) -> None:
        self._vad = SileroVad()
        self._streams: dict[int, _Stream] = {}
        for rate in (8000, 16000):
            size = SileroVad.chunk_samples(rate) + SileroVad.context_samples(rate)
            for count in (1, 8):
                zeros: npt.NDArray[np.float32] = np.zeros((count, size), np.float32)
                self._vad.run(zeros, np.zeros((2, count, 128), np.float32), rate)

    def handle(self, messages: list[Message], link: Link) -> None:
        # Under load several ticks are here at once: all are taken in before the model runs, so that batches grow.
        for header, body in messages:
            match header["type"]:
                case "open":
                    self._streams[header["stream"]] = _Stream(
                        header["stream"], header["format"], header["at_ms"]
                    )
                case "close":
                    self._streams.pop(header["stream"], None)
                case "feed":
                    self._feed(body)
        while ready := [stream for stream in self._streams.values() if stream.whole]:
            self._hear(ready, link)

    def _feed(self, body: bytes) -> None:
        view = memoryview(body)
        at = 0
        while at < len(body):
            number, size = FED.unpack_from(body, at)
            at += FED.size
            if stream := self._streams.get(number):
                stream.feed(view[at : at + size])
            at += size

    def _hear(self, ready: list[_Stream], link: Link) -> None:
        by_rate: defaultdict[int, list[_Stream]] = defaultdict(list)
        for stream in ready:
            by_rate[stream.rate].append(stream)
        heard: list[bytes] = []
        for rate, streams in by_rate.items():
            for at in range(0, len(streams), _MAX_BATCH):
                batch = streams[at : at + _MAX_BATCH]
                probabilities, state = self._vad.run(
                    np.stack([stream.take() for stream in batch]),
                    np.stack([stream.state for stream in batch], axis=1),
                    rate,
                )
                for i, stream in enumerate(batch):
                    stream.state = state[:, i]
                    heard.append(HEARD.pack(stream.number, float(probabilities[i]), stream.end_ms))
        header: dict[str, Any] = {"type": "heard"}
        link.send(header, b"".join(heard))
