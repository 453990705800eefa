"""Where the time of a relayed turn went, as far as the upstream's events show it."""

from __future__ import annotations

from typing import Final

from offhook.realtime.outbox import Outbox

__all__ = ["RelayTurns"]

_MOMENTS: Final = {
    "input_audio_buffer.committed": "committed_ms",
    "conversation.item.input_audio_transcription.completed": "transcript_ms",
    "response.output_audio_transcript.delta": "first_text_ms",
    "response.output_audio.delta": "first_audio_ms",
}


class RelayTurns:
    """
    Notes a `turn` when the first sound of its answer is here, like a `Session` does.

    The clock starts when the upstream says that the caller is silent. When the last word was, it alone knows; a
    session's own silence or its judgement comes before that.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._stopped_at: float | None = None
        self._moments: dict[str, float] = {}

    def receive(self, kind: str, now: float) -> None:
        if kind == "input_audio_buffer.speech_stopped":
            self._stopped_at, self._moments = now, {}
        elif kind == "input_audio_buffer.speech_started":
            self._stopped_at = None
        elif self._stopped_at is not None and (moment := _MOMENTS.get(kind)) is not None:
            after_ms = round((now - self._stopped_at) * 1000, 1)
            self._moments.setdefault(moment, after_ms)
            if moment == "first_audio_ms":
                title = f"answered {after_ms} ms after the upstream heard the caller stop"
                self._outbox.note("turn", title, **self._moments)
                self._stopped_at = None
