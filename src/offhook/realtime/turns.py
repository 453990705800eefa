"""
When the caller speaks and when a turn is over (API rows G07 to G09).

Pure, and on the audio's own clock: everything is decided from the engine's `VoiceActivity` chunks, so a burst of late
packets or a busy process moves no boundary. Feed `receive_activity`, and `receive_transcript` when words are
known; both return what happened, in order.

Speech begins above `threshold` and ends below `threshold - 0.15`, as in Silero VAD's own iterator, so that a voice near
the threshold does not flutter. Silence is counted from where the probability began to fall.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from offhook.realtime.session_config import SemanticVad, ServerVad

__all__ = [
    "SpeechPaused",
    "SpeechResumed",
    "SpeechStarted",
    "SpeechStopped",
    "TurnDetector",
    "TurnEvent",
    "is_unfinished",
]

MIN_SPEECH_MS = 80
"A click or a cough shorter than this does not start a turn."
PAUSE_MS = 160
"""
Silence after which it is worth transcribing, before the turn is known to be over. Words take some 260 ms, and twice
that on a busy machine: begun now, they are there when 500 ms have passed.
"""
HYSTERESIS = 0.15
FALLING_MS = 64
"""
A voice that falls below the threshold on its way to silence was over by then: the detector's probability takes a chunk
or two to come down. Longer than this it is a low voice, which has not ended.
"""
FINISHED_MS = 500
"How long a finished sentence is followed by silence before a semantic turn ends."
MAX_WAIT_MS = {"low": 8000, "medium": 4000, "auto": 4000, "high": 2000}
SEMANTIC_THRESHOLD = 0.5
SEMANTIC_PREFIX_MS = 300

# Words that nobody ends on; the transcript's last word tells whether the caller goes on.
_OPEN_WORDS = frozenset(
    """
    a an and are as at because but by for from have i if in is it's like my of on or our so that the
    then this to uh uhm um umm erm hmm was we're well when where which who with you're your und oder
    aber weil der die das ein eine zum zur mit von für äh ähm et ou mais parce que le la les un une de
    du pour avec euh y o pero porque el los las una para con eh
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller speaks; `start_ms` is where, prefix padding not counted."""

    start_ms: float


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """The caller is silent since `end_ms`; transcribe what was said so far."""

    end_ms: float


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """The caller went on after a pause: what was transcribed is not the whole turn."""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The turn is over. `end_ms` is where the buffer ends, `speech_end_ms` the last speech in it."""

    speech_end_ms: float
    end_ms: float


TurnEvent = SpeechStarted | SpeechPaused | SpeechResumed | SpeechStopped


class State(enum.Enum):
    QUIET = "quiet"
    MAYBE = "maybe"
    SPEAKING = "speaking"
    SILENT = "silent"
    PAUSED = "paused"


def is_unfinished(transcript: str) -> bool:
    """Whether a transcript sounds as if its speaker goes on: a trailing comma, an open word, a trailing-off."""
    text = transcript.strip()
    if not text:
        return True
    if text.endswith((",", ";", ":", "-", "\u2013", "\u2014", "...", "…")):
        return True
    # Speech-to-text puts a full stop behind anything, so an open word counts in spite of one.
    last = text.rstrip(".").rsplit(maxsplit=1)[-1].lower()
    return last in _OPEN_WORDS


class TurnDetector:
    """One caller's turns. `None` for the configuration means that the client decides (row G09)."""

    def __init__(self, config: ServerVad | SemanticVad | None) -> None:
        self._config = config
        self._state = State.QUIET
        self._start_ms = 0.0
        self._speech_ms = 0.0
        self._silence_ms = 0.0
        self._end_ms = 0.0
        # Where the last chunk above the threshold ended.
        self._voiced_ms = 0.0
        self._transcript: str | None = None

    @property
    def speaking(self) -> bool:
        """Whether a turn is under way."""
        return self._state not in (State.QUIET, State.MAYBE)

    @property
    def prefix_padding_ms(self) -> int:
        return self._config.prefix_padding_ms if isinstance(self._config, ServerVad) else SEMANTIC_PREFIX_MS

    @property
    def held_from_ms(self) -> float | None:
        """Where audio must be kept from, when speech has begun or may have."""
        return None if self._state is State.QUIET else self._start_ms - self.prefix_padding_ms

    def configure(self, config: ServerVad | SemanticVad | None) -> None:
        """Change the rules; a turn that is under way goes on under the new ones."""
        self._config = config
        if config is None:
            self.reset()

    def reset(self) -> None:
        """Forget the turn that is under way (a commit or clear by the client)."""
        self._state = State.QUIET
        self._transcript = None

    def receive_activity(self, probability: float, end_ms: float) -> list[TurnEvent]:
        start_ms, self._end_ms = self._end_ms, end_ms
        config = self._config
        if config is None:
            return []
        threshold = config.threshold if isinstance(config, ServerVad) else SEMANTIC_THRESHOLD
        if probability >= threshold:
            self._voiced_ms = end_ms
            return self._hear_speech(start_ms, end_ms - start_ms)
        if probability < max(threshold - HYSTERESIS, 0.01):
            return self._hear_silence(start_ms)
        # Between the two levels: neither starts nor ends anything, but a silence under way goes on.
        return self._check_silence() if self._state in (State.SILENT, State.PAUSED) else []

    def receive_transcript(self, text: str) -> list[TurnEvent]:
        """Take the words of the turn so far; only for the pause that is under way."""
        if self._state is not State.PAUSED:
            return []
        self._transcript = text
        return self._check_silence()

    def _hear_speech(self, start_ms: float, length_ms: float) -> list[TurnEvent]:
        if self._state is State.QUIET:
            self._state, self._start_ms, self._speech_ms = State.MAYBE, start_ms, 0.0
        if self._state is State.MAYBE:
            self._speech_ms += length_ms
            if self._speech_ms < MIN_SPEECH_MS:
                return []
            self._state = State.SPEAKING
            return [SpeechStarted(self._start_ms)]
        resumed = self._state is State.PAUSED
        self._state, self._transcript = State.SPEAKING, None
        return [SpeechResumed()] if resumed else []

    def _hear_silence(self, start_ms: float) -> list[TurnEvent]:
        if self._state is State.MAYBE:
            self._state = State.QUIET
        if self._state is State.QUIET:
            return []
        if self._state is State.SPEAKING:
            self._state, self._silence_ms = State.SILENT, max(self._voiced_ms, start_ms - FALLING_MS)
        return self._check_silence()

    def _check_silence(self) -> list[TurnEvent]:
        events: list[TurnEvent] = []
        silence = self._end_ms - self._silence_ms
        if self._state is State.SILENT and silence >= min(PAUSE_MS, self._wait_ms()):
            self._state = State.PAUSED
            events.append(SpeechPaused(self._silence_ms))
        if self._state is State.PAUSED and silence >= self._wait_ms():
            events.append(SpeechStopped(self._silence_ms, self._end_ms))
            self.reset()
        return events

    def _wait_ms(self) -> int:
        if isinstance(self._config, ServerVad):
            return self._config.silence_duration_ms
        assert self._config is not None
        # Until the words are known, the turn may be unfinished.
        if self._transcript is None or is_unfinished(self._transcript):
            return MAX_WAIT_MS[self._config.eagerness]
        return FINISHED_MS
