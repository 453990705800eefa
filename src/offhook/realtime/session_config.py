"""
The GA session object (API rows G01 to G20): what an app may ask of a session, and its defaults.

Two ways in: `parse_accept` for the flat body of `POST .../accept` (and of a client secret), and
`merge_update` for `session.update`. Both judge the whole input before anything changes, and raise `ConfigError`
with the API's code and a dotted `param` that starts with `session.`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag, ValidationError, field_validator

from offhook.realtime.validation import (
    ApiModel,
    JsonObject,
    RequestError,
    by_type,
    choose,
    kind_of,
    to_request_error,
)

__all__ = [
    "DEFAULT_INSTRUCTIONS",
    "DEFAULT_MODEL",
    "AudioConfig",
    "ConfigError",
    "FunctionTool",
    "MaxOutputTokens",
    "SemanticVad",
    "ServerVad",
    "SessionConfig",
    "ToolChoice",
    "Transcription",
    "merge_update",
    "parse_accept",
    "refuse_stored_prompt",
    "without_nulls",
]

DEFAULT_MODEL = "gpt-realtime-2.1"
DEFAULT_INSTRUCTIONS = (
    "You are a helpful assistant on the phone. Answer in the caller's language, in short spoken sentences. "
    "Ask when something is unclear, and never invent facts."
)


class ConfigError(RequestError):
    """A session object that cannot be used: `code`, `message`, `param`, `type` as in the API's error object."""


# Audio.


class _Format(ApiModel):
    @cached_property
    def shown(self) -> dict[str, Any]:
        """As clients see it; belongs to all who have asked, and is to be left as it is."""
        return self.model_dump(exclude_none=True)


class PcmFormat(_Format):
    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = 24000


class PcmuFormat(_Format):
    type: Literal["audio/pcmu"] = "audio/pcmu"
    rate: Literal[8000] | None = None


class PcmaFormat(_Format):
    type: Literal["audio/pcma"] = "audio/pcma"
    rate: Literal[8000] | None = None


AudioFormatConfig = Annotated[
    Annotated[PcmFormat, Tag("@pcm")]
    | Annotated[PcmuFormat, Tag("@pcmu")]
    | Annotated[PcmaFormat, Tag("@pcma")],
    by_type({"audio/pcm": "@pcm", "audio/pcmu": "@pcmu", "audio/pcma": "@pcma"}),
]


class NoiseReduction(ApiModel):
    type: Literal["near_field", "far_field"]
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0


class Transcription(ApiModel):
    """The engine always transcribes; with this the transcript is told to clients too."""

    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    languages: list[str] | None = None
    keywords: list[str] | None = None
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None

    @property
    def spoken(self) -> str | None:
        """The language that the words are in, where only one was named."""
        if self.languages is not None and len(self.languages) == 1:
            return self.language or self.languages[0]
        return self.language


class ServerVad(ApiModel):
    type: Literal["server_vad"] = "server_vad"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=5000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=0, le=30000)] = 500
    idle_timeout_ms: Annotated[int, Field(ge=5000, le=30000)] | None = None
    create_response: bool = True
    interrupt_response: bool = True


class SemanticVad(ApiModel):
    type: Literal["semantic_vad"] = "semantic_vad"
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True
    model_version: str | None = None


TurnDetection = Annotated[
    Annotated[ServerVad, Tag("@server_vad")] | Annotated[SemanticVad, Tag("@semantic_vad")],
    by_type({"server_vad": "@server_vad", "semantic_vad": "@semantic_vad"}),
]


class AudioInput(ApiModel):
    format: AudioFormatConfig = PcmFormat()
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: TurnDetection | None = ServerVad()

    @property
    def idle_timeout_s(self) -> float | None:
        """After how long a silence the session speaks up by itself (row O14)."""
        if not isinstance(self.turn_detection, ServerVad) or self.turn_detection.idle_timeout_ms is None:
            return None
        return self.turn_detection.idle_timeout_ms / 1000


class VoiceId(ApiModel):
    id: Annotated[str, Field(min_length=1)]


Voice = Annotated[
    Annotated[str, Field(min_length=1), Tag("@name")] | Annotated[VoiceId, Tag("@id")],
    choose(lambda value: "@id" if isinstance(value, Mapping | VoiceId) else "@name"),
]


class AudioOutput(ApiModel):
    format: AudioFormatConfig = PcmFormat()
    voice: Voice = "marin"
    speed: Annotated[float, Field(ge=0.25, le=1.5)] = 1.0

    @property
    def voice_name(self) -> str:
        """The voice as engines know it: its name, or a custom voice's id."""
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice


class AudioConfig(ApiModel):
    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


# Tools.

_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class FunctionTool(ApiModel):
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: JsonObject | None = None

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not _TOOL_NAME.fullmatch(value):
            raise ValueError("expected 1 to 64 letters, digits, '_', '-' or '.'")
        return value


Tool = Annotated[Annotated[FunctionTool, Tag("@function")], by_type({"function": "@function"})]


class NamedToolChoice(ApiModel):
    type: Literal["function"]
    name: str


def _tool_choice_tag(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return "@named" if value.get("type") == "function" else None
    return "@named" if isinstance(value, NamedToolChoice) else "@mode"


ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag("@mode")] | Annotated[NamedToolChoice, Tag("@named")],
    choose(_tool_choice_tag),
]
MaxOutputTokens = Annotated[
    Annotated[int, Field(ge=1, le=4096), Tag("@count")] | Annotated[Literal["inf"], Tag("@inf")],
    choose(lambda value: "@inf" if isinstance(value, str) else "@count"),
]


class RetentionLimits(ApiModel):
    post_instructions: Annotated[int, Field(ge=0)] | None = None


class RetentionRatio(ApiModel):
    type: Literal["retention_ratio"]
    retention_ratio: Annotated[float, Field(ge=0, le=1)]
    token_limits: RetentionLimits | None = None


class Tracing(ApiModel):
    workflow_name: str | None = None
    group_id: str | None = None
    metadata: JsonObject | None = None


class Prompt(ApiModel):
    id: str
    version: str | None = None
    variables: JsonObject | None = None


class Reasoning(ApiModel):
    effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None


Truncation = Annotated[
    Annotated[Literal["auto", "disabled"], Tag("@mode")] | Annotated[RetentionRatio, Tag("@ratio")],
    choose(lambda value: "@ratio" if isinstance(value, Mapping | RetentionRatio) else "@mode"),
]
TracingConfig = Annotated[
    Annotated[Literal["auto"], Tag("@mode")] | Annotated[Tracing, Tag("@named")],
    choose(lambda value: "@named" if isinstance(value, Mapping | Tracing) else "@mode"),
]
Modalities = list[Literal["text", "audio"]]


def check_modalities(value: Modalities) -> Modalities:
    if value not in (["audio"], ["text"]):
        raise ValueError("supported combinations are ['text'] and ['audio']")
    return value


# The session.


class SessionConfig(ApiModel):
    """What is in force in a session. Immutable: an update makes a new one."""

    type: Literal["realtime"]
    model: Annotated[str, Field(min_length=1)] = DEFAULT_MODEL
    instructions: str = DEFAULT_INSTRUCTIONS
    output_modalities: Annotated[Modalities, AfterValidator(check_modalities)] = ["audio"]  # noqa: RUF012
    audio: AudioConfig = AudioConfig()
    tools: list[Tool] = []  # noqa: RUF012
    tool_choice: ToolChoice = "auto"
    max_output_tokens: MaxOutputTokens = "inf"
    truncation: Truncation = "auto"
    tracing: TracingConfig | None = None
    prompt: Prompt | None = None
    include: list[Literal["item.input_audio_transcription.logprobs"]] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None

    def to_api(self, *, session_id: str, expires_at: int) -> dict[str, Any]:
        """
        Return the full session object with every default filled in (rows S13, E10, G02).

        What lies in it belongs to all who have asked, and is to be left as it is.
        """
        head = {"type": self.type, "object": "realtime.session", "id": session_id}
        return head | self._shown | {"expires_at": expires_at}

    @cached_property
    def _shown(self) -> dict[str, Any]:
        session = self.model_dump(exclude={"type"})
        # Clients of before these fields were new validate what they know; absent is safer than null.
        for name in ("parallel_tool_calls", "reasoning"):
            if session[name] is None:
                del session[name]
        _strip(session["audio"]["input"]["format"], "rate")
        _strip(session["audio"]["output"]["format"], "rate")
        if self.audio.input.transcription is not None:
            session["audio"]["input"]["transcription"] = self.audio.input.transcription.model_dump(
                exclude_none=True
            )
        turn_detection = session["audio"]["input"]["turn_detection"]
        if turn_detection is not None:
            _strip(turn_detection, "model_version")
        for tool in session["tools"]:
            _strip(tool, "description")
            _strip(tool, "parameters")
        return session


def parse_accept(
    body: Any, *, default_model: str = DEFAULT_MODEL, stored_prompts: bool = False
) -> SessionConfig:
    """
    Judge the flat session object of an accept body (rows R01, R04, R09 to R11) and fill in the defaults.

    Null means `not given`, except where the API gives null a meaning (`turn_detection`, `transcription`, ...).
    `stored_prompts`: whoever serves the model knows what a `prompt` names. Raises `ConfigError`.
    """
    given = _object(body, "session")
    if given.get("type") is None:
        raise ConfigError(
            "missing_required_parameter", "Missing required parameter: 'session.type'.", "session.type"
        )
    if given["type"] == "transcription":
        raise ConfigError(
            "invalid_value",
            "Invalid value: 'transcription'. A phone call's session is 'realtime'. To have one written down and not "
            "answered, set 'audio.input.transcription', and 'audio.input.turn_detection.create_response' to false.",
            "session.type",
        )
    config = _validate({"model": default_model} | _without_nulls(given, _SESSION_NULLS))
    if not stored_prompts:
        refuse_stored_prompt(config.prompt, given.get("instructions"), "session", ConfigError)
    return config


def refuse_stored_prompt(
    prompt: Prompt | None, instructions: str | None, parent: str, error: type[RequestError] = RequestError
) -> None:
    """
    Refuse a prompt that nothing but its name is known of (rows G18, E14), unless instructions say what to do anyway.

    Else an agent would speak that knows nothing of its task.
    """
    if prompt is not None and not instructions:
        raise error(
            "invalid_value",
            f"Invalid value for '{parent}.prompt': what it names is stored with OpenAI, and this server cannot read "
            f"it. Give '{parent}.instructions', and what tools it has, in its place or beside it.",
            f"{parent}.prompt",
        )


def without_nulls(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an accept body without the nulls that mean `not given`."""
    return _without_nulls(body, _SESSION_NULLS)


def merge_update(config: SessionConfig, session: Any) -> SessionConfig:
    """
    Lay a `session.update` over what is in force (rows E01 to E06); the caller applies E07.

    Objects merge field by field; lists and formats are replaced; `""`, `[]` and a meaningful null clear. The model
    stays what it was, whatever the update says. Raises `ConfigError`, and then nothing has changed.
    """
    given = _object(session, "session")
    if given.get("type") is None:
        raise ConfigError(
            "missing_required_parameter", "Missing required parameter: 'session.type'.", "session.type"
        )
    if given["type"] == "transcription":
        raise ConfigError(
            "invalid_parameter",
            "Passing a transcription session update event to a realtime session is not allowed. Open a session with "
            "?intent=transcription, or say 'realtime'.",
            "session.type",
        )
    update = _without_nulls(given, _SESSION_NULLS)
    present = config.model_dump()
    if isinstance(update.get("model"), str):
        del update["model"]
    updated = _validate(_merge(present, update, ""))
    if updated.prompt != config.prompt:
        refuse_stored_prompt(updated.prompt, update.get("instructions"), "session", ConfigError)
    return updated


# Fields where null says something; everywhere else it says `leave it`.
_SESSION_NULLS = {
    "tracing",
    "prompt",
    "include",
    "reasoning",
    "audio.input.turn_detection",
    "audio.input.noise_reduction",
    "audio.input.transcription",
    "audio.input.turn_detection.idle_timeout_ms",
    *(f"audio.input.transcription.{name}" for name in Transcription.model_fields),
}
# Objects whose parts can be updated one by one. A new `type` starts from that type's defaults.
_MERGED = {
    "audio",
    "audio.input",
    "audio.output",
    "audio.input.turn_detection",
    "audio.input.noise_reduction",
    "audio.input.transcription",
}
_PARTS: dict[str, list[type[ApiModel]]] = {
    "": [SessionConfig],
    "audio": [AudioConfig],
    "audio.input": [AudioInput],
    "audio.input.format": [PcmFormat],
    "audio.input.noise_reduction": [NoiseReduction],
    "audio.input.transcription": [Transcription],
    "audio.input.turn_detection": [ServerVad, SemanticVad],
    "audio.output": [AudioOutput],
    "audio.output.format": [PcmFormat],
}
_KNOWN = {path: {name for model in models for name in model.model_fields} for path, models in _PARTS.items()}
_RENAMED = {
    "session.modalities": "session.output_modalities",
    "session.voice": "session.audio.output.voice",
    "session.speed": "session.audio.output.speed",
    "session.input_audio_format": "session.audio.input.format",
    "session.output_audio_format": "session.audio.output.format",
    "session.input_audio_transcription": "session.audio.input.transcription",
    "session.input_audio_noise_reduction": "session.audio.input.noise_reduction",
    "session.turn_detection": "session.audio.input.turn_detection",
    "session.max_response_output_tokens": "session.max_output_tokens",
}
_REMEDIES = {
    "session.audio.input.noise_reduction": 'Give an object such as {"type": "near_field"}, or null.',
    "session.audio.input.transcription": 'Give an object such as {"model": "whisper-1"}, or null.',
    "session.audio.input.turn_detection": 'Give {"type": "server_vad"}, {"type": "semantic_vad"}, or null.',
    "session.audio.output.voice": 'Give a voice\'s name, or {"id": "voice_..."}.',
    "session.max_output_tokens": "Give an integer from 1 to 4096, or 'inf'.",
    "session.tool_choice": 'Give one of these, or {"type": "function", "name": "..."}.',
    "session.tracing": "Give 'auto', an object with 'workflow_name', 'group_id' or 'metadata', or null.",
    "session.truncation": 'Or give {"type": "retention_ratio", "retention_ratio": 0.8}.',
    **dict.fromkeys(
        ("session.id", "session.object", "session.expires_at", "session.client_secret"),
        "The server sets it: leave it out.",
    ),
    "session.temperature": "The GA API has none: leave it out.",
}
"What to do about a wrong value, where the fault alone does not say it."


def _object(value: Any, param: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(
            "invalid_type",
            f"Invalid type for '{param}': expected an object, but got {kind_of(value)} instead.",
            param,
        )
    return value


def _without_nulls(value: Mapping[str, Any], meaningful: set[str], path: str = "") -> dict[str, Any]:
    """Drop the nulls that mean `not given`, in the session and its audio objects; not those of fields nobody knows."""
    kept: dict[str, Any] = {}
    for name, part in value.items():
        here = f"{path}.{name}" if path else name
        if part is None and here not in meaningful and name in _KNOWN.get(path, ()):
            continue
        kept[name] = _without_nulls(part, meaningful, here) if _is_nested(here, part) else part
    return kept


def _is_nested(path: str, value: Any) -> bool:
    return isinstance(value, Mapping) and (path in _MERGED or path.endswith(".format"))


def _merge(present: dict[str, Any], update: Mapping[str, Any], path: str) -> dict[str, Any]:
    merged = dict(present)
    for name, part in update.items():
        here = f"{path}.{name}" if path else name
        before = present.get(name)
        if here in _MERGED and isinstance(part, Mapping) and isinstance(before, Mapping):
            changes_kind = here != "audio.input.noise_reduction" and part.get("type") not in (
                None,
                before.get("type"),
            )
            merged[name] = dict(part) if changes_kind else _merge(dict(before), part, here)
        else:
            merged[name] = part
    return merged


def _validate(session: Mapping[str, Any]) -> SessionConfig:
    try:
        return SessionConfig.model_validate(session)
    except ValidationError as error:
        remedies = _REMEDIES | {old: f"In the GA API this is '{new}'." for old, new in _RENAMED.items()}
        raise to_request_error(error, "session", remedies=remedies, error_type=ConfigError) from None


def _strip(value: dict[str, Any], name: str) -> None:
    if value.get(name, "") is None:
        del value[name]
