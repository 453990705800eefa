"""
An engine without models: it hears and says what a script tells it to.

For tests, examples and the bench. It is deterministic and has no clock: its delays are counted in the caller's
audio, 20 ms a frame, so they pass as fast as audio is fed. Voice activity is the loudness of the audio. What is said
is a tone, 60 ms for each character, so that interruptions and truncation have something to cut.

A script is a list of turns; the n-th utterance of the caller plays the n-th (the last one again, when there are no
more). Each turn says what the engine `hears` and how it replies: the first reply to the caller, the next one to the
tools' outputs, and so on. A response without any utterance before it gets the greeting.

    Script(
        greeting="Hello, this is the scripted engine.",
        turns=(
            Turn("What is the weather?", (
                Reply(calls=(Call("get_weather", '{"city":"Berlin"}'),)),
                Reply("It is sunny in Berlin."),
            )),
        ),
    )
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import numpy as np

from offhook.audio import g711, tones
from offhook.audio.frames import Law
from offhook.realtime.conversation import ConversationRules
from offhook.realtime.engine import (
    AudioFormat,
    CancelResponse,
    Engine,
    EngineCommand,
    EngineEvent,
    EngineFailed,
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
    VoiceActivity,
)
from offhook.realtime.session import Session
from offhook.realtime.session_config import SessionConfig
from offhook.realtime.tokens import Allowance
from offhook.realtime.transcription_config import TranscriptionConfig
from offhook.realtime.transcription_session import create_session

__all__ = ["Call", "Reply", "Script", "ScriptedEngine", "ScriptedFactory", "Turn"]

FRAME_MS = 20
CHARACTER_MS = 60
LOUD = 6
"Mean magnitude of a frame that counts as speech, in 1/256 of full scale: about -33 dB."
TALK_MS = 4000
"How much sound `talk` makes at a time."


@dataclass(frozen=True)
class Call:
    """One function call."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True)
class Reply:
    """What one response says and calls."""

    says: str = ""
    calls: tuple[Call, ...] = ()
    delay_ms: int = 0
    "Thinking time before the first word."
    sentence_ms: int = 0
    "Time between sentences; 0 gives them all at once."
    status: Literal["completed", "incomplete", "failed"] = "completed"


@dataclass(frozen=True)
class Turn:
    """One utterance of the caller, and the replies to it."""

    hears: str = ""
    replies: tuple[Reply, ...] = (Reply("I see."),)
    hear_delay_ms: int = 0
    fails: bool = False
    "Whether the transcription fails."


@dataclass(frozen=True)
class Script:
    turns: tuple[Turn, ...] = ()
    "Empty: everything is heard as `something` and echoed."
    greeting: str = "Hello, this is Offhook. How can I help you?"
    talk: bool = False
    "Answer once and never stop talking, from sound that was made beforehand (for the bench)."
    dies_after_ms: int | None = None
    "The engine fails after this much of the caller's audio."


class _Job(NamedTuple):
    """Something to emit once that much audio was heard."""

    at_ms: float
    event: EngineEvent


_when = attrgetter("at_ms")


class ScriptedEngine:
    """One session's voice. See the module for what it does."""

    def __init__(self, script: Script, on_close: Callable[[], None] | None = None) -> None:
        self._script = script
        self._on_close = on_close
        self._emit: Callable[[EngineEvent], None] | None = None
        self._format: AudioFormat = "audio/pcmu"
        self._heard_ms = 0.0
        self._jobs: list[_Job] = []
        self._utterances: list[str] = []
        self._replied: dict[int, int] = {}
        self._talking: Respond | None = None
        self._talk_at_ms = 0.0
        self._calls = 0

    # The engine protocol.

    async def start(self, start: EngineStart, emit: Callable[[EngineEvent], None]) -> None:
        self._format = start.audio_format
        self._emit = emit

    def hear(self, audio: bytes) -> None:
        emit = self._emit
        if emit is None:
            return
        self._heard_ms += FRAME_MS
        if not self._script.talk:
            emit(VoiceActivity(1.0 if _is_loud(audio, self._format) else 0.0, self._heard_ms))
        self._talk_on()
        dies = self._script.dies_after_ms
        if dies is not None and self._heard_ms >= dies:
            self._emit = None
            emit(EngineFailed("the script ends the engine here"))
            return
        self._run_jobs()

    def handle(self, command: EngineCommand) -> None:
        match command:
            case Transcribe():
                self._transcribe(command)
            case Respond():
                self._respond(command)
            case CancelResponse():
                if self._talking is not None and self._talking.response_id == command.response_id:
                    self._talking = None
                self._jobs = [
                    job for job in self._jobs if getattr(job.event, "response_id", "") != command.response_id
                ]
        self._run_jobs()

    async def close(self) -> None:
        self._emit = None
        self._jobs.clear()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    # The script.

    def _transcribe(self, command: Transcribe) -> None:
        if command.item_id not in self._utterances:
            self._utterances.append(command.item_id)
        turn = self._turn(self._utterances.index(command.item_id))
        seconds = len(command.audio) / (1000 * _BYTES_PER_MS[self._format])
        answer: EngineEvent = Transcribed(command.item_id, command.revision, turn.hears, seconds)
        if turn.fails:
            answer = TranscriptionFailed(command.item_id, command.revision, "scripted", "the script says so")
        self._after(turn.hear_delay_ms, answer)

    def _turn(self, index: int) -> Turn:
        turns = self._script.turns
        if turns:
            return turns[min(index, len(turns) - 1)]
        return Turn("something", (Reply("You said: something."),))

    def _respond(self, command: Respond) -> None:
        if self._script.talk:
            self._talking, self._talk_at_ms = command, self._heard_ms
            self._talk_on()
            return
        reply = self._reply(command.items)
        delay = float(reply.delay_ms)
        rid, generation = command.response_id, command.generation
        allowance = Allowance(command.max_output_tokens)
        for sentence in _sentences(allowance.cut(reply.says)):
            text = sentence.strip()
            if command.audio:
                self._after(delay, ResponseSpeech(rid, generation, text, _sound(text, self._format)))
            else:
                self._after(delay, ResponseText(rid, generation, sentence))
            delay += reply.sentence_ms
        for call in reply.calls:
            if not allowance.holds(call.name + call.arguments):
                break
            self._calls += 1
            call_id = f"call_{rid.removeprefix('resp_')}_{self._calls}"
            self._after(delay, FunctionCallStarted(rid, generation, call_id, call.name))
            half = len(call.arguments) // 2
            for piece in filter(None, (call.arguments[:half], call.arguments[half:])):
                self._after(delay, FunctionCallArguments(rid, generation, call_id, piece))
        self._after(delay, _finished(command, reply, allowance))

    def _reply(self, items: Sequence[Mapping[str, Any]]) -> Reply:
        spoken = sum(item.get("role") == "user" for item in items)
        if spoken == 0:
            return Reply(self._script.greeting)
        replies = self._turn(spoken - 1).replies
        given = self._replied.get(spoken, 0)
        self._replied[spoken] = given + 1
        return replies[min(given, len(replies) - 1)] if replies else Reply()

    def _talk_on(self) -> None:
        talking, emit = self._talking, self._emit
        if talking is not None and emit is not None and self._heard_ms >= self._talk_at_ms:
            self._talk_at_ms = self._heard_ms + TALK_MS
            audio = _talk_sound(self._format)
            emit(ResponseSpeech(talking.response_id, talking.generation, "Still talking.", audio))

    # Delays.

    def _after(self, delay_ms: float, event: EngineEvent) -> None:
        insort(self._jobs, _Job(self._heard_ms + delay_ms, event), key=_when)

    def _run_jobs(self) -> None:
        while self._jobs and self._jobs[0].at_ms <= self._heard_ms and self._emit is not None:
            self._emit(self._jobs.pop(0).event)


class ScriptedFactory:
    """The engine kind `scripted`."""

    kind = "scripted"
    relays = False
    opening_s: float | None = None
    prompt = False

    def __init__(
        self, script: Script | None = None, *, slots: int = 0, rules: ConversationRules | None = None
    ) -> None:
        self.script = script or Script()
        self._rules = rules
        self._slots = slots
        self._taken = 0
        self._ready = False

    async def start(self) -> None:
        self._ready = True

    @property
    def ready(self) -> bool:
        return self._ready

    @property
    def free(self) -> int | None:
        return max(0, self._slots - self._taken) if self._slots else None

    def create(self) -> Engine:
        if self._slots and self._taken >= self._slots:
            raise EngineUnavailable(f"all {self._slots} slots of the scripted engine are taken")
        self._taken += 1
        return ScriptedEngine(self.script, self._free)

    def create_session(self, config: SessionConfig | TranscriptionConfig, **options: Any) -> Session:
        """Turns, conversation and responses are ours; see `EngineFactory.create_session`."""
        return create_session(config, rules=self._rules, **options)

    def describe(self) -> Mapping[str, object]:
        return {
            "kind": self.kind,
            "turns": len(self.script.turns),
            "talk": self.script.talk,
            "speech": "tones",
        }

    async def close(self) -> None:
        self._ready = False

    def _free(self) -> None:
        self._taken -= 1


# Sound.

_BYTES_PER_MS: dict[AudioFormat, int] = {"audio/pcmu": 8, "audio/pcma": 8, "audio/pcm": 48}


def _loudness(law: Law) -> bytes:
    """Return the table from a G.711 byte to its magnitude in 1/256 of full scale."""
    linear = np.abs(g711.decode(bytes(range(256)), law).astype(np.int32))
    return bytes((linear >> 7).astype(np.uint8))


_LOUDNESS: dict[str, bytes] = {"audio/pcmu": _loudness("PCMU"), "audio/pcma": _loudness("PCMA")}


def _is_loud(audio: bytes, audio_format: AudioFormat) -> bool:
    table = _LOUDNESS.get(audio_format)
    if table is not None:
        return sum(audio.translate(table)) > LOUD * len(audio)
    samples = memoryview(audio).cast("h")[::8].tolist()
    return sum(map(abs, samples)) > (LOUD << 7) * len(samples)


@lru_cache(256)
def _sentences(says: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^.!?]+[.!?]*\s*", says))


@lru_cache(64)
def _sound(text: str, audio_format: AudioFormat) -> bytes:
    """Return a tone as long as the text takes to say."""
    second = _second(audio_format)
    length = max(1, len(text)) * CHARACTER_MS * _BYTES_PER_MS[audio_format]
    return (second * (length // len(second) + 1))[:length]


def _talk_sound(audio_format: AudioFormat) -> bytes:
    if audio_format not in _TALK:
        _TALK[audio_format] = _second(audio_format) * (TALK_MS // 1000)
    return _TALK[audio_format]


def _second(audio_format: AudioFormat) -> bytes:
    if audio_format not in _SECONDS:
        if audio_format == "audio/pcm":
            _SECONDS[audio_format] = tones.tone(440.0, 1000, level=0.2, rate=24000).tobytes()
        else:
            _SECONDS[audio_format] = g711.encode(
                tones.tone(440.0, 1000, level=0.2), g711.law_of(audio_format)
            )
    return _SECONDS[audio_format]


_SECONDS: dict[AudioFormat, bytes] = {}
_TALK: dict[AudioFormat, bytes] = {}


def _finished(command: Respond, reply: Reply, allowance: Allowance) -> ResponseFinished:
    status = "incomplete" if allowance.spent and reply.status == "completed" else reply.status
    failed = status == "failed"
    return ResponseFinished(
        command.response_id,
        command.generation,
        status,
        reason="max_output_tokens" if status == "incomplete" else None,
        error_code="scripted_failure" if failed else None,
        error_message="the script says so" if failed else None,
        input_tokens=sum(len(str(item)) // 4 for item in command.items),
        output_tokens=allowance.used,
    )
