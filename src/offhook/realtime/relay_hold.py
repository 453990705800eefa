"""The sentence that a caller hears instead of silence while an upstream is opened again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from offhook.realtime.engine import AudioFormat
from offhook.realtime.outbox import Outbox
from offhook.realtime.relay_voice import RelayVoice

__all__ = ["HoldSentence", "RelayHold"]

GRACE_S = 0.4
"A silence as long as this is part of any talk; an upstream that is back within it is not missed."
PAUSE_S = 4.0
"Between one time and the next."
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class HoldSentence:
    title: str
    "What it says, or where it is from, for the timeline."
    sounds: Mapping[AudioFormat, bytes]
    "Its sound as each kind of line takes it."


class RelayHold:
    """
    Says the sentence when the caller has heard nothing for `GRACE_S`, and again after a pause.

    How often, the opening bounds: it ends with an upstream or with the call.
    """

    def __init__(
        self, sentence: HoldSentence | None, audio_format: AudioFormat, voice: RelayVoice, outbox: Outbox
    ) -> None:
        self._title = sentence.title if sentence is not None else ""
        self._sound = sentence.sounds.get(audio_format, b"") if sentence is not None else b""
        self._voice = voice
        self._outbox = outbox
        self._silent_since: float | None = None
        self.due: float | None = None
        "When `fire` is to be called."

    def begin(self, now: float) -> None:
        """The upstream is lost."""
        if self._sound and self.due is None:
            self._silent_since = now
            self.due = now + GRACE_S

    def end(self) -> None:
        """There is one again, or none will come. What is being said is said to its end."""
        self.due = None

    def fire(self, now: float) -> None:
        if self._voice.busy or self._voice.holding:
            self._silent_since = None
            self.due = now + _LOOK_S
        elif self._silent_since is None:
            self._silent_since = now
            self.due = now + GRACE_S
        else:
            self._outbox.note("upstream", f"the caller hears: {self._title}")
            self.due = now + self._voice.hold(self._sound) + PAUSE_S
