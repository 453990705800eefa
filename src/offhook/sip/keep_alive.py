"""CRLF pings on connections that hold a dialog (RFC 5626 section 4.4.1)."""

from __future__ import annotations

from collections.abc import Callable

from .flow import Flow
from .timer_heap import Alarm, TimerHeap

__all__ = ["CRLF_PING", "KeepAlives"]

CRLF_PING = b"\r\n\r\n"


class KeepAlives:
    """Counts the dialogs of each connection, and pings those that have any."""

    def __init__(self, timers: TimerHeap, *, interval: float, ping: Callable[[Flow], None]) -> None:
        self._timers = timers
        self._interval = interval
        self._ping = ping
        self._by_connection: dict[int, _Held] = {}

    def hold(self, flow: Flow, *, now: float) -> None:
        """Keep a connection alive for one more dialog."""
        assert flow.connection is not None
        held = self._by_connection.get(flow.connection)
        if held is None:
            held = _Held(flow, now + self._interval, self._interval, self._ping)
            self._by_connection[flow.connection] = held
        held.holders += 1
        self._timers.arm(held)

    def release(self, connection: int) -> None:
        """Note that a dialog is over."""
        if held := self._by_connection.get(connection):
            held.holders -= 1
            if not held.holders:
                self.forget(connection)

    def forget(self, connection: int) -> None:
        """Note that a connection closed."""
        if held := self._by_connection.pop(connection, None):
            held.holders = 0

    def holds(self, connection: int) -> bool:
        return connection in self._by_connection


class _Held:
    __slots__ = ("_deadline", "_flow", "_interval", "_ping", "armed", "holders")

    def __init__(self, flow: Flow, deadline: float, interval: float, ping: Callable[[Flow], None]) -> None:
        self.armed: Alarm | None = None
        self.holders = 0
        self._flow = flow
        self._deadline = deadline
        self._interval = interval
        self._ping = ping

    def next_timer(self) -> float | None:
        return self._deadline if self.holders else None

    def handle_timer(self, *, now: float) -> None:
        self._deadline = now + self._interval
        self._ping(self._flow)
