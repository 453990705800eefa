"""What decides what is said: the interface, and the parts that an answer is made of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from ...engine import Respond

__all__ = ["Apology", "Brain", "BrainPart", "CallArguments", "CallStarted", "Ended", "Say"]


@dataclass(frozen=True, slots=True)
class Say:
    """A piece of the answer's text, of any length."""

    text: str


@dataclass(frozen=True, slots=True)
class Apology:
    """Something to say because the answer failed, in place of a sentence that has begun. Never written, only spoken."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A tool is to be called. Its arguments follow; calls may be interleaved."""

    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    call_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The last part of every answer."""

    status: Literal["completed", "incomplete", "failed"] = "completed"
    reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    "Of the input."


BrainPart = Say | Apology | CallStarted | CallArguments | Ended


class Brain(Protocol):
    """One brain serves all sessions of a node and keeps nothing between answers."""

    async def start(self) -> None:
        """Get ready. Raises `EngineUnavailable` with the remedy."""

    def respond(self, command: Respond) -> AsyncGenerator[BrainPart, None]:
        """Yield the parts of an answer; the last is `Ended`. Closing the generator stops all work for it at once."""

    def describe(self) -> Mapping[str, object]: ...

    async def close(self) -> None: ...
