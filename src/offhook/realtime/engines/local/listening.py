"""The event loop's side of voice activity: every call's frames to one worker, a tick at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from ...engine import AudioFormat, EngineEvent, EngineFailed, VoiceActivity
from .process import Role, Supervisor, WorkerProcess
from .sound import bytes_per_second
from .vad import FED, HEARD
from .wire import Message

__all__ = ["Listening", "ListeningStream"]

_STREAM_S = 0.002
"""How much longer a tick is for each call: with few of them there is little to gather, and each ms is waited for."""
_HELD_BYTES = 4_000_000
"""Audio kept while the worker is being replaced: ten seconds of fifty calls. What comes after that is not heard."""


class ListeningStream:
    """One call's ear. `hear` is the hot path: two appends."""

    def __init__(
        self,
        listening: Listening,
        number: int,
        audio_format: AudioFormat,
        emit: Callable[[EngineEvent], None],
    ) -> None:
        self.number = number
        self.audio_format = audio_format
        self.emit = emit
        self.taken = 0
        "Bytes handed over so far."
        self._listening = listening
        self._usual = bytes_per_second(audio_format) // 50
        self._prefix = FED.pack(number, self._usual)

    def hear(self, audio: bytes) -> None:
        size = len(audio)
        self.taken += size
        self._listening.take(self._prefix if size == self._usual else FED.pack(self.number, size), audio)

    def close(self) -> None:
        self._listening.close_stream(self)


class Listening:
    """The worker for voice activity, and the streams it listens to."""

    def __init__(self, role: Role, tick_s: float) -> None:
        self.supervisor = Supervisor(
            role,
            1,
            on_ready=self._ready,
            on_message=self._message,
            on_lost=self._lost,
            on_none_left=self._none_left,
        )
        self._tick_s = tick_s
        self._streams: dict[int, ListeningStream] = {}
        self._numbers = itertools.count(1)
        self._worker: WorkerProcess | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._armed = False

    @property
    def ready(self) -> bool:
        return self._worker is not None

    async def start(self, timeout: float = 60.0) -> None:
        await self.supervisor.start(timeout)

    async def close(self) -> None:
        self._streams.clear()
        await self.supervisor.close()

    def open_stream(self, audio_format: AudioFormat, emit: Callable[[EngineEvent], None]) -> ListeningStream:
        """Return a new call's stream; `emit` gets a `VoiceActivity` for every 32 ms fed to it."""
        stream = ListeningStream(self, next(self._numbers), audio_format, emit)
        self._streams[stream.number] = stream
        self._announce(stream)
        return stream

    def close_stream(self, stream: ListeningStream) -> None:
        if self._streams.pop(stream.number, None) and self._worker:
            self._worker.send({"type": "close", "stream": stream.number})

    def take(self, prefix: bytes, audio: bytes) -> None:
        self._pending.append(prefix)
        self._pending.append(audio)
        self._pending_bytes += len(audio)
        if not self._armed:
            self._arm(min(self._tick_s, _STREAM_S * len(self._streams)))

    def _arm(self, delay_s: float) -> None:
        self._armed = True
        asyncio.get_running_loop().call_later(delay_s, self._flush)

    def _flush(self) -> None:
        self._armed = False
        if self._worker is not None:
            self._worker.send({"type": "feed"}, b"".join(self._pending))
        elif self._pending_bytes < _HELD_BYTES:
            self._arm(self._tick_s)
            return
        self._pending.clear()
        self._pending_bytes = 0

    def _announce(self, stream: ListeningStream) -> None:
        if self._worker is None:
            return
        at_ms = 1000 * stream.taken / bytes_per_second(stream.audio_format)
        self._worker.send(
            {"type": "open", "stream": stream.number, "format": stream.audio_format, "at_ms": at_ms}
        )

    def _ready(self, worker: WorkerProcess) -> None:
        self._worker = worker
        # What waits here is fed after this, so the streams go on where the lost worker had everything up to.
        waiting: dict[int, int] = {}
        for prefix, audio in zip(self._pending[::2], self._pending[1::2], strict=True):
            number, _ = FED.unpack(prefix)
            waiting[number] = waiting.get(number, 0) + len(audio)
        for stream in self._streams.values():
            stream.taken -= waiting.get(stream.number, 0)
            self._announce(stream)
            stream.taken += waiting.get(stream.number, 0)

    def _message(self, worker: WorkerProcess, message: Message) -> None:
        for number, probability, end_ms in HEARD.iter_unpack(message.body):
            if stream := self._streams.get(number):
                stream.emit(VoiceActivity(probability, end_ms))

    def _lost(self, worker: WorkerProcess) -> None:
        self._worker = None

    def _none_left(self, reason: str) -> None:
        for stream in list(self._streams.values()):
            stream.emit(EngineFailed(reason))
