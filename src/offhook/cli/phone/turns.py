"""Whose turn it is, from the caller's chair: what is heard, when it has ended, how long it took to come."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["Answered", "HeardEnded", "HeardStarted", "TurnEvent", "TurnTaking"]

FRAME_S = 0.020


@dataclass(frozen=True, slots=True)
class HeardStarted:
    """The other side began to speak."""

    at: float


@dataclass(frozen=True, slots=True)
class HeardEnded:
    """The other side finished: it has been silent for the gap since `ended_at`."""

    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The first sound after we had finished speaking."""

    turn: int
    "Which of our turns was answered; from 1."
    after_s: float
    "From the last voiced sample that we sent to the first voiced frame that we heard."


TurnEvent = HeardStarted | HeardEnded | Answered


class TurnTaking:
    """
    Listens in frames of 20 ms and says when the caller may speak.

    Pure: `hear` takes each frame's level and the time it came; `began` and `finished` say what we did ourselves.
    A pause shorter than `gap_s` belongs to what is being said. Who hears nothing for `patience_s` may speak anyway.
    """

    def __init__(
        self, now: float, *, gap_s: float = 1.0, patience_s: float = 10.0, voiced_db: float = -45.0
    ) -> None:
        self.gap_s = gap_s
        self.patience_s = patience_s
        self._voiced_db = voiced_db
        self._recent: deque[tuple[float, bool]] = deque(maxlen=5)
        self._started_at: float | None = None
        self._last_voiced = now
        self._quiet_since = now
        self._heard_since_ours = False
        self._speaking = False
        self._turns = 0
        self._unanswered_since: float | None = None

    @property
    def turns(self) -> int:
        """How many times we have begun to speak."""
        return self._turns

    def hear(self, level_db: float, now: float) -> list[TurnEvent]:
        """Take the level of one frame (dB of full scale) that came at `now`."""
        voiced = level_db >= self._voiced_db
        self._recent.append((now, voiced))
        if voiced:
            self._last_voiced = now + FRAME_S
        if self._started_at is None:
            return self._start(now) if voiced else []
        if now - self._last_voiced < self.gap_s:
            return []
        ended = HeardEnded(self._started_at, self._last_voiced)
        self._started_at = None
        self._quiet_since = self._last_voiced
        return [ended]

    def began(self, now: float) -> None:
        """Note that we speak."""
        self._speaking = True
        self._turns += 1
        self._unanswered_since = None

    def finished(self, now: float) -> None:
        """Note that our last voiced sample has been sent."""
        self._speaking = False
        self._heard_since_ours = False
        self._quiet_since = now
        self._unanswered_since = now

    def may_speak(self, now: float) -> bool:
        """Whether it is our turn."""
        if self._speaking or self._started_at is not None:
            return False
        return self._heard_since_ours or now - self._quiet_since >= self.patience_s

    def answered(self, now: float) -> bool:
        """Whether the other side has spoken and finished since we last did."""
        return self._heard_since_ours and self._started_at is None and not self._speaking

    def _start(self, now: float) -> list[TurnEvent]:
        # A click is not speech: three voiced frames in five are, and speech began with the first of them.
        voiced = [at for at, was_voiced in self._recent if was_voiced]
        if len(voiced) < 3:
            return []
        self._started_at = voiced[0]
        self._heard_since_ours = True
        events: list[TurnEvent] = [HeardStarted(voiced[0])]
        if self._unanswered_since is not None and voiced[0] >= self._unanswered_since:
            events.append(Answered(self._turns, voiced[0] - self._unanswered_since))
            self._unanswered_since = None
        return events
