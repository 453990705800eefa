"""
The GA transcription session object (API row G01): a session that listens, writes down, and never answers.

It is a realtime session's hearing and nothing else of it, so it is kept as a realtime session's configuration: what
`audio.input` may be, how an update is laid over it, and what is said of a fault are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from offhook.realtime.session_config import (
    DEFAULT_MODEL,
    ConfigError,
    SessionConfig,
    merge_update,
    parse_accept,
)

__all__ = ["TranscriptionConfig", "parse_session"]

DEFAULT_TRANSCRIPTION = "whisper-1"
"Shown where no model is named. Whatever is named, the engine's own ear writes."

_ANSWERS = frozenset(
    {
        "instructions",
        "max_output_tokens",
        "max_response_output_tokens",
        "modalities",
        "output_audio_format",
        "output_modalities",
        "parallel_tool_calls",
        "prompt",
        "reasoning",
        "speed",
        "temperature",
        "tool_choice",
        "tools",
        "tracing",
        "truncation",
        "voice",
    }
)
"About answers, of which there are none."
_UNSHOWN = ("create_response", "interrupt_response", "idle_timeout_ms", "model_version")


@dataclass(frozen=True, slots=True)
class TranscriptionConfig:
    """What is in force in a transcription session. Immutable: an update makes a new one."""

    session: SessionConfig
    "The realtime session that hears so. No turn of it asks for an answer."

    @classmethod
    def parse(cls, body: Any, *, model: str = DEFAULT_MODEL) -> TranscriptionConfig:
        """
        Judge a session object of `type` `transcription` and fill in the defaults. Raises `ConfigError`.

        `model` is what chose the engine. The object itself names none but the transcription's.
        """
        transcription = {"model": DEFAULT_TRANSCRIPTION}
        default = parse_accept(
            {"type": "realtime", "model": model, "audio": {"input": {"transcription": transcription}}}
        )
        return cls(default).updated(body)

    def updated(self, session: Any) -> TranscriptionConfig:
        """Lay a `session.update` over it, by the rules of `merge_update`. Raises `ConfigError`."""
        if isinstance(session, Mapping) and session.get("type") is not None:
            _judge(session)
            session = {**session, "type": "realtime"}
        return TranscriptionConfig(_without_answers(merge_update(self.session, session)))

    @property
    def model(self) -> str:
        return self.session.model

    def to_api(self, *, session_id: str, expires_at: int) -> dict[str, Any]:
        """Return the full session object with every default filled in; it is to be left as it is."""
        whole = self.session.to_api(session_id=session_id, expires_at=expires_at)
        heard = dict(whole["audio"]["input"])
        if heard["turn_detection"] is not None:
            heard["turn_detection"] = {
                name: value for name, value in heard["turn_detection"].items() if name not in _UNSHOWN
            }
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": session_id,
            "audio": {"input": heard},
            "include": whole["include"],
            "expires_at": expires_at,
        }


def parse_session(body: Mapping[str, Any], *, model: str) -> SessionConfig | TranscriptionConfig:
    """
    Judge the session object of a session without a call, of either type. Raises `ConfigError`.

    `model` chooses the engine, and stands in a realtime session.
    """
    if body.get("type") == "transcription":
        return TranscriptionConfig.parse(body, model=model)
    return parse_accept({**body, "model": model})


def _judge(session: Mapping[str, Any]) -> None:
    """Refuse by name what a realtime session has and this has not. The rest is `merge_update`'s to judge."""
    if session["type"] == "realtime":
        raise ConfigError(
            "invalid_parameter",
            "Passing a realtime session update event to a transcription session is not allowed. Open a session with "
            "?model= and without an intent, or say 'transcription'.",
            "session.type",
        )
    if session["type"] != "transcription":
        message = f"Invalid value: '{str(session['type'])[:80]}'. Supported values are: 'transcription'."
        raise ConfigError("invalid_value", message, "session.type")
    for name, value in session.items():
        if value is None:
            continue
        if name == "model":
            message = "The model goes into 'session.audio.input.transcription.model'."
            raise _unknown("session.model", message)
        if name in _ANSWERS:
            raise _unknown(f"session.{name}", _remedy(name))
    audio = session.get("audio")
    if not isinstance(audio, Mapping):
        return
    if audio.get("output") is not None:
        raise _unknown("session.audio.output", _remedy("output"))
    heard = audio.get("input")
    detection = heard.get("turn_detection") if isinstance(heard, Mapping) else None
    if isinstance(detection, Mapping) and detection.get("idle_timeout_ms") is not None:
        param = "session.audio.input.turn_detection.idle_timeout_ms"
        raise _unknown(param, "It is about the silence after an answer. " + _remedy("answer"))


def _remedy(name: str) -> str:
    if name in ("instructions", "prompt"):
        return (
            "A transcription session gives no answers. What the transcript should know goes into "
            "'session.audio.input.transcription.prompt'."
        )
    return "A transcription session gives no answers. Open a session with ?model= and without an intent for them."


def _unknown(param: str, remedy: str) -> ConfigError:
    return ConfigError("unknown_parameter", f"Unknown parameter: '{param}'. {remedy}", param)


def _without_answers(config: SessionConfig) -> SessionConfig:
    """Ask for no answer, and let the engine speak as it hears, so that no sound is converted for nothing."""
    heard = config.audio.input
    detection = heard.turn_detection
    if detection is not None:
        detection = detection.model_copy(update={"create_response": False, "interrupt_response": False})
    audio = config.audio.model_copy(
        update={
            "input": heard.model_copy(update={"turn_detection": detection}),
            "output": config.audio.output.model_copy(update={"format": heard.format}),
        }
    )
    return config.model_copy(update={"audio": audio})
