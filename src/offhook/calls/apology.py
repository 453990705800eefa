"""What a caller hears when the voice has failed in mid-call, before the BYE."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from offhook.audio.frames import SAMPLE_RATE, Law
from offhook.realtime.relay_hold import HoldSentence

from .playout import CallPlayout
from .timeline import Timeline

__all__ = ["Apology"]

TAIL_S = 0.3
"For the last of it to be played at the other end."


class Apology:
    """Said once. `sentence` is `None` where callers shall hear nothing."""

    def __init__(self, sentence: HoldSentence | None, timeline: Timeline) -> None:
        self._sentence = sentence
        self._timeline = timeline
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_being_said(self) -> bool:
        return self._timer is not None

    def say(self, playout: CallPlayout, law: Law, then: Callable[[], None]) -> bool:
        """Say it instead of what is queued, and call `then` after it; False when there is nothing to say."""
        if self._sentence is None:
            return False
        sound = self._sentence.sounds["audio/pcmu" if law == "PCMU" else "audio/pcma"]
        loop = asyncio.get_running_loop()
        # What the failed session does to its own sound in this turn is not to cut it short.
        loop.call_soon(self._play, playout, sound)
        self._timer = loop.call_later(len(sound) / SAMPLE_RATE + TAIL_S, then)
        return True

    def end(self) -> None:
        """The call is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _play(self, playout: CallPlayout, sound: bytes) -> None:
        if self._timer is not None and self._sentence is not None:
            self._timeline.record("call", f"the caller hears: {self._sentence.title}")
            playout.clear()
            playout.play(sound)
