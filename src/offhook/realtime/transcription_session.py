"""A session that writes down what it hears (API rows S03, G01): turns and their words, and no response ever."""

from __future__ import annotations

from typing import Any

from offhook.realtime import client_events as client
from offhook.realtime.client_events import ClientEvent
from offhook.realtime.session import Session
from offhook.realtime.session_config import SessionConfig
from offhook.realtime.transcription_config import TranscriptionConfig
from offhook.realtime.validation import RequestError

__all__ = ["TranscriptionSession", "create_session"]

_NO_RESPONSES = (
    "a transcription session gives no responses. Open one with ?model= and without an intent for them."
)
_ONLY_HEARD = (
    "the items of a transcription session are what it heard. Send sound with input_audio_buffer.append."
)


class TranscriptionSession(Session):
    """A `Session` whose turns end with their words. For clients on a WebSocket, not for phone calls."""

    def describe(self) -> dict[str, Any]:
        return TranscriptionConfig(self.config).to_api(session_id=self.id, expires_at=self._expires_at)

    def _merge(self, session: Any) -> SessionConfig:
        return TranscriptionConfig(self.config).updated(session).session

    def _handle_client_event(self, event: ClientEvent, sender: int, now: float) -> None:
        match event:
            case client.ResponseCreate() | client.ResponseCancel() | client.OutputAudioBufferClear():
                raise _unsupported(event.type, _NO_RESPONSES)
            case client.ItemTruncate():
                raise _unsupported(event.type, _NO_RESPONSES)
            case client.ItemCreate():
                raise _unsupported(event.type, _ONLY_HEARD)
        super()._handle_client_event(event, sender, now)


def _unsupported(name: str, why: str) -> RequestError:
    return RequestError("unsupported_event", f"{name} is not served: {why}", "type")


def create_session(config: SessionConfig | TranscriptionConfig, **options: Any) -> Session:
    """Return the core for an engine of ours. `options` are those of `Session`."""
    if isinstance(config, TranscriptionConfig):
        return TranscriptionSession(config.session, **options)
    return Session(config, **options)
