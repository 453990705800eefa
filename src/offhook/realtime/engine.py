"""
What a voice must do for a session.

A session (`offhook.realtime.session`) is pure: it decides. An engine does the work that takes time: it
hears, transcribes, thinks and speaks. The session hands it commands; it answers with events, in its own time, from the
event loop's thread. Every event about a response carries the response's id and generation; the session drops
events of a response that is over, so an engine need not race to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from offhook.realtime.core import SessionCore
    from offhook.realtime.session_config import SessionConfig
    from offhook.realtime.transcription_config import TranscriptionConfig

__all__ = [
    "AudioFormat",
    "CancelResponse",
    "Engine",
    "EngineCommand",
    "EngineEvent",
    "EngineFactory",
    "EngineFailed",
    "EngineStart",
    "EngineUnavailable",
    "FunctionCallArguments",
    "FunctionCallStarted",
    "KeepUpstream",
    "PauseUpstream",
    "PhoneCallsOnly",
    "ReopenUpstream",
    "Respond",
    "ResponseFinished",
    "ResponseSpeech",
    "ResponseText",
    "ResumeUpstream",
    "SendUpstream",
    "Transcribe",
    "Transcribed",
    "TranscriptionFailed",
    "UpstreamEvent",
    "UpstreamLost",
    "UpstreamNote",
    "UpstreamOpened",
    "UpstreamUnavailable",
    "VoiceActivity",
]

AudioFormat = Literal["audio/pcmu", "audio/pcma", "audio/pcm"]
"""G.711 mu-law or A-law at 8 kHz, one byte a sample; or signed 16-bit little-endian at 24 kHz. All mono."""


class EngineUnavailable(Exception):  # noqa: N818 - a state of the node, not a fault
    """The engine cannot serve one more session now; the message says why."""


class UpstreamUnavailable(EngineUnavailable):
    """No upstream takes the call; the message says what each of them said."""


class PhoneCallsOnly(Exception):  # noqa: N818 - what it is, not a fault
    """This kind of engine serves no session without a call; the message says what does."""


# Commands: session to engine.


@dataclass(frozen=True, slots=True)
class Transcribe:
    """
    Put an utterance into words.

    The session may send this before the turn is over, as soon as the caller pauses, and again with a higher
    `revision` if the caller went on. Answer each with `Transcribed` or `TranscriptionFailed`; skip older ones.
    """

    item_id: str
    revision: int
    audio: bytes
    "The whole utterance, prefix padding included, in the session's audio format."
    language: str | None = None
    prompt: str | None = None


@dataclass(slots=True)
class Respond:
    """Create a response. Answer with any number of its parts, then exactly one `ResponseFinished`."""

    response_id: str
    generation: int
    items: Sequence[Mapping[str, Any]]
    """
    The conversation so far, as API items (`type`: message, function_call, function_call_output). User audio appears as
    `input_audio` content with its `transcript`; assistant audio as `output_audio` with the transcript that was heard.
    """
    instructions: str
    tools: Sequence[Mapping[str, Any]]
    "API tools: `{type: function, name, description?, parameters?}`."
    tool_choice: str | Mapping[str, Any]
    audio: bool
    "Speak (`ResponseSpeech`) when true, else only write (`ResponseText`)."
    voice: str
    speed: float
    max_output_tokens: int | Literal["inf"]
    parallel_tool_calls: bool | None = None
    "Whether tools may be called several at a time; `None`: as the engine likes."


@dataclass(slots=True)
class CancelResponse:
    """Stop working on a response. Nothing need be answered; late events are dropped."""

    response_id: str


@dataclass(frozen=True, slots=True)
class SendUpstream:
    """Send this client event to the Realtime API that is the call's voice."""

    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReopenUpstream:
    """
    Open a connection again, or the next of the list. Answer `UpstreamOpened` or, where the old one is lost,
    `EngineFailed`. One that still stands is let go when the new one is there.
    """

    session: Mapping[str, Any]
    "What was in force, for `session.update`."
    items: Sequence[Mapping[str, Any]]
    "For `conversation.item.create`, in order. `audio` of a part is bytes, in the session's audio format."
    turn: bytes = b""
    "What the caller has said of a turn that is not over, in the session's audio format."


@dataclass(frozen=True, slots=True)
class PauseUpstream:
    """Read nothing more from the connection: more sound has come than anybody will listen to."""


@dataclass(frozen=True, slots=True)
class ResumeUpstream:
    """Read on."""


@dataclass(frozen=True, slots=True)
class KeepUpstream:
    """Let `ReopenUpstream` be: the present connection goes on."""


EngineCommand = (
    Transcribe
    | Respond
    | CancelResponse
    | SendUpstream
    | ReopenUpstream
    | KeepUpstream
    | PauseUpstream
    | ResumeUpstream
)


# Events: engine to session.


@dataclass(slots=True)
class VoiceActivity:
    """How likely a chunk of the caller's audio is speech. Chunks come in order, without gaps."""

    probability: float
    end_ms: float
    "Where the chunk ends, in ms of caller audio since the session's first frame."


@dataclass(frozen=True, slots=True)
class Transcribed:
    item_id: str
    revision: int
    text: str
    seconds: float
    "How much audio was transcribed."


@dataclass(frozen=True, slots=True)
class TranscriptionFailed:
    item_id: str
    revision: int
    code: str
    message: str


@dataclass(slots=True)
class ResponseSpeech:
    """
    Something to be said, and its sound.

    `text` belongs to the audio that starts with this event, up to the next event that has text; a sentence may come
    as one event, or as its text with the first chunk and more chunks with no text.
    """

    response_id: str
    generation: int
    text: str
    audio: bytes
    "In the session's audio format; any whole number of samples."


@dataclass(slots=True)
class ResponseText:
    """Written output, for a response that does not speak."""

    response_id: str
    generation: int
    text: str


@dataclass(frozen=True, slots=True)
class FunctionCallStarted:
    response_id: str
    generation: int
    call_id: str
    "`call_...`, unique in the session."
    name: str


@dataclass(frozen=True, slots=True)
class FunctionCallArguments:
    response_id: str
    generation: int
    call_id: str
    delta: str
    "A piece of the arguments' JSON text. All pieces together are one JSON object."


@dataclass(slots=True)
class ResponseFinished:
    response_id: str
    generation: int
    status: Literal["completed", "incomplete", "failed"] = "completed"
    reason: str | None = None
    "For incomplete: `max_output_tokens` or `content_filter`."
    error_code: str | None = None
    error_message: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    "Of the input."
    timings: Mapping[str, float] = field(default_factory=dict)
    "Where the time went, in ms by name (`brain`, `tts`, ...), for the timeline."


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """The engine is gone for this session (a worker died and could not be replaced)."""

    message: str


@dataclass(frozen=True, slots=True)
class UpstreamOpened:
    """A Realtime API has taken the call, and the session's configuration."""

    name: str
    session: dict[str, Any]
    "The effective session object, as the upstream described it."
    event_id: str | None = None
    "Of its `session.created`."


@dataclass(frozen=True, slots=True)
class UpstreamEvent:
    """A server event of the upstream, as it came."""

    event: dict[str, Any]
    audio: bytes = b""
    "The sound of a `response.output_audio.delta`, in the session's audio format."


@dataclass(frozen=True, slots=True)
class UpstreamLost:
    """The connection is gone, though nobody closed it here."""

    reason: str


@dataclass(frozen=True, slots=True)
class UpstreamNote:
    """Something about the connection, for the call's timeline; `refused` in its details is the kind of a refusal."""

    title: str
    details: Mapping[str, object] = field(default_factory=dict)


EngineEvent = (
    VoiceActivity
    | Transcribed
    | TranscriptionFailed
    | ResponseSpeech
    | ResponseText
    | FunctionCallStarted
    | FunctionCallArguments
    | ResponseFinished
    | EngineFailed
    | UpstreamOpened
    | UpstreamEvent
    | UpstreamLost
    | UpstreamNote
)


@dataclass(slots=True)
class EngineStart:
    """What an engine is told when a session starts."""

    session_id: str
    audio_format: AudioFormat
    "The format of the audio handed to `hear` and expected in `ResponseSpeech`."
    model: str
    "The model name that the app asked for."
    session: Mapping[str, Any] = field(default_factory=dict)
    "The session object of the accept body: what the app gave, without defaults."


class Engine(Protocol):
    """One session's voice. All methods are called from the event loop's thread."""

    async def start(self, start: EngineStart, emit: Callable[[EngineEvent], None]) -> None:
        """Get ready; return when a first word could be heard and answered. Raises `EngineUnavailable`."""

    def hear(self, audio: bytes) -> None:
        """Take 20 ms of the caller's audio. Called 50 times a second for each call: must return within microseconds."""

    def handle(self, command: EngineCommand) -> None:
        """Take a command. Must not block."""

    async def close(self) -> None:
        """Free everything. Safe to call twice, and before `start`."""


class EngineFactory(Protocol):
    """One kind of engine on this node; owns what its engines share, such as worker processes."""

    kind: str
    relays: bool
    "Whether a session object goes on to somebody who may know more of it than this server."
    opening_s: float | None
    "How long one engine's `start` may take; `None`: the node's setting."
    prompt: bool
    "Whether its engines hear frames as they come, in order but not even; else one every 20 ms."

    async def start(self) -> None:
        """Load and warm the models. Raises `EngineUnavailable` with the remedy when something is missing."""

    @property
    def ready(self) -> bool:
        """Whether a call could be served now."""

    @property
    def free(self) -> int | None:
        """How many more engines `create` would return; `None`: there is no limit."""

    def create(self) -> Engine:
        """Reserve a slot and return an engine for one session. Raises `EngineUnavailable` when full."""

    def create_session(
        self,
        config: SessionConfig | TranscriptionConfig,
        *,
        session_id: str,
        audio_format: AudioFormat,
        new_id: Callable[[str], str],
        sip: bool,
        max_duration_s: float,
    ) -> SessionCore:
        """Return the core that goes with these engines. Raises `PhoneCallsOnly` without `sip`, where that holds."""

    def describe(self) -> Mapping[str, object]:
        """Say what this engine is and what it cannot do, for logs and `GET /v1/realtime/calls/{id}`."""

    async def close(self) -> None:
        """End the workers."""
