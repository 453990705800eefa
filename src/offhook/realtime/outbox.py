"""What a session tells its driver, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from offhook.realtime.engine import EngineCommand
from offhook.realtime.retrieval import RetrievedItem

__all__ = [
    "ClearPlayout",
    "HearAudio",
    "Outbox",
    "Output",
    "PlayAudio",
    "RetrievedItem",
    "ServerEvent",
    "SessionClosed",
    "SessionExpired",
    "SessionNote",
]


@dataclass(slots=True)
class ServerEvent:
    """Send this event to one client, or to all."""

    event: dict[str, Any]
    to: int | None = None
    "The sender it answers; `None`: every client."


@dataclass(slots=True)
class PlayAudio:
    """Queue this for the caller, in the session's audio format."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class ClearPlayout:
    """Stop the caller's sound now and drop what is queued."""


@dataclass(frozen=True, slots=True)
class HearAudio:
    """A client sent 20 ms of audio: hand it to the engine (never on a call, where media does that itself)."""

    audio: bytes


@dataclass(slots=True)
class SessionNote:
    """Something for the call's timeline."""

    kind: str
    "`heard`, `said`, `tool_call`, `turn`, `interrupted`, `response` or `error`."
    title: str
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionExpired:
    """The session reached its maximum duration. The owner ends the call, then closes the session."""


@dataclass(slots=True)
class SessionClosed:
    """Nothing more will come: every response is done."""

    reason: str


Output = (
    ServerEvent
    | RetrievedItem
    | EngineCommand
    | PlayAudio
    | ClearPlayout
    | HearAudio
    | SessionNote
    | SessionExpired
    | SessionClosed
)


class Outbox:
    """Collects outputs; shared by a session's parts, so that what they say keeps one order."""

    def __init__(self, new_id: Callable[[str], str]) -> None:
        self.new_id = new_id
        self._outputs: list[Output] = []

    def __bool__(self) -> bool:
        return bool(self._outputs)

    def event(self, event: dict[str, Any], to: int | None = None) -> None:
        """Emit a server event; `event_id` goes in right behind `type` (row V14)."""
        kind = event["type"]
        self._outputs.append(ServerEvent({"type": kind, "event_id": self.new_id("event"), **event}, to))

    def raw_event(self, event: dict[str, Any]) -> None:
        """Emit an event that has no `event_id` in the schema (row V07)."""
        self._outputs.append(ServerEvent(event))

    def command(self, command: EngineCommand) -> None:
        self._outputs.append(command)

    def note(self, kind: str, title: str, **details: object) -> None:
        self._outputs.append(SessionNote(kind, title, details))

    def put(self, output: Output) -> None:
        self._outputs.append(output)

    def take(self) -> list[Output]:
        outputs, self._outputs = self._outputs, []
        return outputs
