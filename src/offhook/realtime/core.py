"""What a session's driver drives: `Session`, which thinks for itself, or `Relay`, whose voice is elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from offhook.realtime.client_events import ClientFrame
from offhook.realtime.engine import EngineEvent
from offhook.realtime.long_events import Ear
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

    @property
    def ear(self) -> Ear | None:
        """What to make of the sound in an event of many megabytes; `None`: the event is to be given whole."""

    def receive_client_event(self, event: ClientFrame, *, sender: int, now: float) -> None: ...

    def receive_digit(self, digit: str, now: float, received_at: float) -> None: ...

    def receive_engine_event(self, event: EngineEvent, now: float) -> None: ...

    def playout_progress(self, played_samples: int, now: float) -> None: ...

    def playout_drained(self, played_samples: int, now: float) -> None: ...

    def close(self, reason: str, now: float) -> None: ...
