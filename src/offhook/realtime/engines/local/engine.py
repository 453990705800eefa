"""The embedded voice: what joins ears, words, a brain and a mouth to a session."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from ...conversation import ConversationRules
from ...engine import (
    CancelResponse,
    EngineCommand,
    EngineEvent,
    EngineStart,
    EngineUnavailable,
    FunctionCallArguments,
    FunctionCallStarted,
    Respond,
    ResponseFinished,
    ResponseSpeech,
    ResponseText,
    Transcribe,
    Transcribed,
    TranscriptionFailed,
)
from ...session import Session
from ...session_config import SessionConfig
from ...transcription_config import TranscriptionConfig
from ...transcription_session import create_session
from . import weights
from .brain import Apology, Brain, BrainPart, CallArguments, CallStarted, Ended, Say
from .brain_chat import ChatBrain
from .brain_rules import RulesBrain
from .config import BrainConfig, LocalConfig
from .listening import Listening, ListeningStream
from .process import Role
from .sentences import SentenceSplitter, speakable
from .spoken import SpokenSentences
from .wire import Message
from .workers import Job, JobError, JobPool

__all__ = ["LocalEngine", "LocalFactory"]

TRANSCRIPT_S = 30.0
"How long one utterance may take to be transcribed; nobody waits longer for its words."

log = logging.getLogger("offhook.realtime")

# How far below the event loop each worker runs. A caller notices a late first word most, a late transcript least.
_NICE = {"vad": 2, "tts": 4, "stt": 10}
_SESSIONS_PER_WORKER = 25
_SLOWEST, _FASTEST = 0.5, 2.0
_FIRST, _LATER = 0, 1
"""Priorities of a response's first sentence, which a caller waits for, and of those that are made while it plays."""


def create_brain(config: BrainConfig) -> Brain:
    return ChatBrain(config) if config.kind == "chat_completions" else RulesBrain(config)


class LocalFactory:
    """The embedded engine of a node: its worker processes, its brain, and its slots for sessions."""

    kind = "local"
    relays = False
    opening_s: float | None = None
    prompt = False

    def __init__(self, config: LocalConfig) -> None:
        self.config = config
        self.brain = create_brain(config.brain)
        self.listening: Listening | None = None
        self.transcribers: JobPool | None = None
        self.speakers: JobPool | None = None
        self.spoken = SpokenSentences()
        self.warm_s = 0.0
        "How long `start` took."
        self._workers = config.workers or len(os.sched_getaffinity(0))
        self._slots = config.max_sessions or _SESSIONS_PER_WORKER * self._workers
        self._engines: set[LocalEngine] = set()
        # Rules go through any conversation; only a language model has a window.
        asks_model = config.brain.kind == "chat_completions"
        self._rules = ConversationRules(
            config.strict_truncation, config.brain.context_tokens if asks_model else None
        )

    async def start(self) -> None:
        began = time.monotonic()
        config = self.config
        await self.brain.start()
        weights.check_voice(config.voice_model)
        voice = str(config.voice_model) if config.voice_model else None
        self.listening = Listening(Role("vad", _NICE["vad"]), config.tick_ms / 1000)
        self.speakers = JobPool(Role("tts", _NICE["tts"], {"voice_model": voice}), config.speakers)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.listening.start())
                tasks.create_task(self.speakers.start())
                tasks.create_task(self._start_transcribers())
        except ExceptionGroup as group:
            # Not `except*`: what is raised inside of one is wrapped in a group again by Python 3.11.2.
            missing, bugs = group.split(EngineUnavailable)
            if missing is None or bugs is not None:
                raise
            await self.close()
            raise EngineUnavailable(str(missing.exceptions[0])) from group
        self.warm_s = time.monotonic() - began
        self._say_what_it_is()

    async def _start_transcribers(self) -> None:
        # Reading 145 MB to check them takes a while; the others load meanwhile.
        directory = await asyncio.to_thread(
            weights.find_whisper, self.config.whisper_dir, self.config.cache_dir
        )
        self.transcribers = JobPool(Role("stt", _NICE["stt"], {"whisper_dir": str(directory)}), self._workers)
        await self.transcribers.start()

    def _say_what_it_is(self) -> None:
        about = self.brain.describe()
        log.info(
            "the embedded voice is ready after %.1f s; %s%s",
            self.warm_s,
            about["brain"],
            f"; it {about['note']}" if "note" in about else "",
            extra={"event": "engine.ready", "engine": "local", "warm_s": round(self.warm_s, 2)},
        )

    @property
    def ready(self) -> bool:
        parts = (self.listening, self.speakers, self.transcribers)
        return all(part is not None and part.ready for part in parts)

    @property
    def free(self) -> int | None:
        return max(0, self._slots - len(self._engines))

    def create(self) -> LocalEngine:
        if not self.ready:
            raise EngineUnavailable("the embedded voice is not ready: its workers are starting or were lost")
        if len(self._engines) >= self._slots:
            raise EngineUnavailable(f"all {self._slots} sessions of the embedded voice are in use")
        engine = LocalEngine(self)
        self._engines.add(engine)
        return engine

    def release(self, engine: LocalEngine) -> None:
        self._engines.discard(engine)

    def create_session(self, config: SessionConfig | TranscriptionConfig, **options: Any) -> Session:
        """Turns, conversation and responses are ours; see `EngineFactory.create_session`."""
        return create_session(config, rules=self._rules, **options)

    def describe(self) -> Mapping[str, object]:
        pools = {
            "vad": self.listening.supervisor.describe() if self.listening else {},
            "tts": self.speakers.supervisor.describe() if self.speakers else {},
            "stt": self.transcribers.supervisor.describe() if self.transcribers else {},
        }
        return {
            "kind": self.kind,
            **self.brain.describe(),
            "vad": "Silero VAD v6",
            "stt": f"Whisper ({self.config.whisper_dir or 'base'}), not streaming",
            "tts": "hibari: one US English voice; `voice` is ignored, `speed` is 0.5 to 2",
            "sessions": len(self._engines),
            "max_sessions": self._slots,
            "workers": pools,
        }

    async def close(self) -> None:
        for engine in list(self._engines):
            await engine.close()
        for part in (self.listening, self.speakers, self.transcribers):
            if part is not None:
                await part.close()
        await self.brain.close()


class LocalEngine:
    """One session's voice."""

    def __init__(self, factory: LocalFactory) -> None:
        self._factory = factory
        self._emit: Callable[[EngineEvent], None] = lambda event: None
        self._start: EngineStart | None = None
        self._stream: ListeningStream | None = None
        self._transcriptions: dict[str, Job] = {}
        self._responses: dict[str, asyncio.Task[None]] = {}

    async def start(self, start: EngineStart, emit: Callable[[EngineEvent], None]) -> None:
        listening = self._factory.listening
        if listening is None or not self._factory.ready:
            raise EngineUnavailable("the embedded voice is not ready: its workers are starting or were lost")
        self._start = start
        self._emit = emit
        self._stream = listening.open_stream(start.audio_format, emit)

    def hear(self, audio: bytes) -> None:
        if self._stream is not None:
            self._stream.hear(audio)

    def handle(self, command: EngineCommand) -> None:
        match command:
            case Transcribe():
                self._transcribe(command)
            case Respond():
                self._respond(command)
            case CancelResponse():
                if task := self._responses.get(command.response_id):
                    task.cancel()

    async def close(self) -> None:
        self._emit = lambda event: None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        for job in self._transcriptions.values():
            assert self._factory.transcribers is not None
            self._factory.transcribers.cancel(job)
        self._transcriptions.clear()
        tasks = list(self._responses.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._factory.release(self)

    # Hearing

    def _transcribe(self, command: Transcribe) -> None:
        pool = self._factory.transcribers
        assert pool is not None
        assert self._start is not None
        earlier = self._transcriptions.get(command.item_id)
        if earlier is not None:
            pool.cancel(earlier)
        header = {
            "type": "transcribe",
            "format": self._start.audio_format,
            "language": command.language,
            "prompt": command.prompt,
        }

        def done(message: Message) -> None:
            self._transcriptions.pop(command.item_id, None)
            self._emit(
                Transcribed(
                    command.item_id, command.revision, message.header["text"], message.header["seconds"]
                )
            )

        def failed(failure: JobError) -> None:
            self._transcriptions.pop(command.item_id, None)
            self._emit(TranscriptionFailed(command.item_id, command.revision, failure.code, str(failure)))

        job = Job(header, command.audio, done, failed, timeout_s=TRANSCRIPT_S)
        self._transcriptions[command.item_id] = job
        pool.submit(job)

    # Answering

    def _respond(self, command: Respond) -> None:
        assert self._start is not None
        factory = self._factory
        assert factory.speakers is not None
        answering = _Answering(
            command, self._start, factory.brain, factory.speakers, factory.spoken, self._tell
        )
        task = asyncio.get_running_loop().create_task(answering.run())
        self._responses[command.response_id] = task
        task.add_done_callback(lambda done: self._responses.pop(command.response_id, None))

    def _tell(self, event: EngineEvent) -> None:
        self._emit(event)


class _Answering:
    """One response on its way from the brain to the caller's ear."""

    def __init__(
        self,
        command: Respond,
        start: EngineStart,
        brain: Brain,
        speakers: JobPool,
        spoken: SpokenSentences,
        emit: Callable[[EngineEvent], None],
    ) -> None:
        self._command = command
        self._start = start
        self._brain = brain
        self._speakers = speakers
        self._spoken = spoken
        self._emit = emit
        self._of = (command.response_id, command.generation)
        self._splitter = SentenceSplitter()
        self._began = time.monotonic()
        self._timings: dict[str, float] = {}
        self._priority = _FIRST

    async def run(self) -> None:
        try:
            async with aclosing(self._brain.respond(self._command)) as parts:
                async for part in parts:
                    await self._take(part)
        except JobError as exc:
            self._finish(Ended("failed", error_code=exc.code, error_message=f"text to speech: {exc}"))
        except Exception as exc:
            log.exception(
                "the brain failed", extra={"event": "brain.crashed", "response_id": self._command.response_id}
            )
            self._finish(
                Ended("failed", error_code="brain_crashed", error_message=f"{type(exc).__name__}: {exc}")
            )

    async def _take(self, part: BrainPart) -> None:
        match part:
            case Say(text):
                self._mark("brain")
                await self._say(text)
            case Apology(text):
                self._splitter.drop()
                if self._command.audio:
                    await self._speak(text)
            case CallStarted(call_id, name):
                self._mark("brain")
                await self._flush()
                self._emit(FunctionCallStarted(*self._of, call_id, name))
            case CallArguments(call_id, delta):
                self._emit(FunctionCallArguments(*self._of, call_id, delta))
            case Ended():
                await self._flush()
                self._finish(part)

    async def _say(self, text: str) -> None:
        if not self._command.audio:
            self._emit(ResponseText(*self._of, text))
            return
        for sentence in self._splitter.push(text):
            await self._speak(sentence)

    async def _flush(self) -> None:
        for sentence in self._splitter.flush():
            await self._speak(sentence)

    async def _speak(self, sentence: str) -> None:
        text = speakable(sentence)
        if not text:
            return
        words = text
        async with aclosing(self._sound_of(text)) as pieces:
            async for audio in pieces:
                self._mark("tts")
                self._emit(ResponseSpeech(*self._of, words, audio))
                words = ""
        if words:  # nothing in it can be said, but it belongs to the transcript
            self._emit(ResponseSpeech(*self._of, words, b""))
        self._priority = _LATER

    async def _sound_of(self, text: str) -> AsyncGenerator[bytes, None]:
        """Yield a sentence's sound as it is made, or at once if it was made before. Raises `JobError`."""
        speed = min(max(self._command.speed, _SLOWEST), _FASTEST)
        key = (text, self._start.audio_format, speed)
        if (known := self._spoken.get(key)) is not None:
            await asyncio.sleep(0)  # nothing else here waits: a long answer must not hold the loop
            yield known
            return
        header = {"type": "speak", "text": text, "format": self._start.audio_format, "speed": speed}
        pieces: list[bytes] = []
        async with aclosing(self._speakers.messages(header, priority=self._priority)) as messages:
            async for message in messages:
                if message.header["type"] == "audio":
                    pieces.append(message.body)
                    yield message.body
        if pieces:
            self._spoken.put(key, b"".join(pieces))

    def _mark(self, name: str) -> None:
        """Note how long the first text (`brain`) took, and after it the first sound (`tts`)."""
        if name not in self._timings:
            self._timings[name] = (time.monotonic() - self._began) * 1000 - sum(self._timings.values())

    def _finish(self, end: Ended) -> None:
        self._emit(
            ResponseFinished(
                *self._of,
                status=end.status,
                reason=end.reason,
                error_code=end.error_code,
                error_message=end.error_message,
                input_tokens=end.input_tokens,
                output_tokens=end.output_tokens,
                cached_tokens=end.cached_tokens,
                timings=self._timings,
            )
        )
