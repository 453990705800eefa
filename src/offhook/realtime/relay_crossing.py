"""Going on in a new session of the upstream before the present one ends by itself."""

from __future__ import annotations

from typing import Any

from offhook.realtime.engine import KeepUpstream
from offhook.realtime.outbox import Outbox

__all__ = ["RelayCrossing"]

CROSSING_S = 30.0
"How long before the upstream's own end of a session a quiet moment is looked for."
_LOOK_S = 0.5
_CHANGES = ("conversation.item.", "input_audio_buffer.", "response.", "session.updated")
"Events after which the conversation or the session is another than a new connection was told."


class RelayCrossing:
    """When to open the next session, and whether that is under way. `due` says when to call `fire`."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._under_way = False
        self.due: float | None = None

    def opened(self, expires_at: Any, now: float, wall: float) -> None:
        """A session was opened that says when it ends, if it says something sensible."""
        self.end()
        if isinstance(expires_at, int | float) and (left_s := expires_at - wall) > 2 * CROSSING_S:
            self.due = now + left_s - CROSSING_S

    def end(self) -> None:
        """The session is gone."""
        self.due, self._under_way = None, False

    def fire(self, now: float, *, quiet: bool) -> bool:
        """Return whether to open the next one now: nobody speaks, and nothing is under way."""
        self.due, self._under_way = (None, True) if quiet else (now + _LOOK_S, False)
        if quiet:
            self._outbox.note("upstream", "its session is about to end: opened anew at a quiet moment")
        return quiet

    def receive(self, kind: str, now: float) -> None:
        """Take what comes meanwhile: what begins now would be lost with the connection on which it began."""
        if self._under_way and kind.startswith(_CHANGES):
            self.stop()
            self.due = now + _LOOK_S

    def stop(self) -> None:
        """Let the next one be, if it is being opened."""
        if self._under_way:
            self._outbox.command(KeepUpstream())
        self.end()
