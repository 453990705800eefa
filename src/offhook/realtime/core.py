"""What a session's driver drives: `Session`, which thinks for itself, or `Relay`, whose voice is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from offhook.realtime.engine import EngineEvent
from offhook.realtime.outbox import Output

__all__ = ["SessionCore"]


class SessionCore(Protocol):
    """Pure: inputs take `now` (seconds, monotonic); after each, take `outputs()` and arm `next_timer()`."""

    @property
    def id(self) -> str: ...

    @property
    def sip(self) -> bool: ...

    @property
    def new_id(self) -> Callable[[str], str]: ...

    @property
    def has_outputs(self) -> bool: ...

    @property
    def behind(self) -> bool:
        """Whether a client's audio waits to be heard, so that its next event had better wait too."""

    @property
    def receive_audio(self) -> Callable[[bytes, float], None]: ...

    def start(self, now: float, wall: float) -> None: ...

    def outputs(self) -> list[Output]: ...

    def next_timer(self) -> float | None: ...

    def handle_timer(self, now: float) -> None: ...

    def describe(self) -> dict[str, Any]: ...

    def attach(self, sender: int, *, audio: bool = False) -> None: ...

    def detach(self, sender: int) -> None: ...

    def receive_client_event(
        self, event: Mapping[str, Any] | str | bytes, *, sender: int, now: float
    ) -> None: ...

    def receive_digit(self, digit: str, now: float, received_at: float) -> None: ...

    def receive_engine_event(self, event: EngineEvent, now: float) -> None: ...

    def playout_progress(self, played_samples: int, now: float) -> None: ...

    def playout_drained(self, played_samples: int, now: float) -> None: ...

    def close(self, reason: str, now: float) -> None: ...
