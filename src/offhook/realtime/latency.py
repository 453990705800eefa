"""Where the time of one turn went, from the caller's last word to the first sound of the answer."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TurnLatency"]


@dataclass(slots=True)
class TurnLatency:
    """Moments on the monotonic clock; `None` until they come."""

    speech_end: float
    "When the last frame of speech was received."
    committed: float
    "When the turn was known to be over."
    transcript: float | None = None
    first_text: float | None = None
    first_audio: float | None = None
    "When the answer's first audio was handed to playout."
    first_played: float | None = None
    "When its first packet was seen to be sent; exact to one 20 ms frame."

    def details(self) -> dict[str, object]:
        """Return ms since the caller's last word, for what has come."""
        moments = {
            "committed_ms": self.committed,
            "transcript_ms": self.transcript,
            "first_text_ms": self.first_text,
            "first_audio_ms": self.first_audio,
            "first_played_ms": self.first_played,
        }
        return {
            name: round(max(0.0, moment - self.speech_end) * 1000, 1)
            for name, moment in moments.items()
            if moment is not None
        }
