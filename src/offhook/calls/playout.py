"""The agent's sound on its way to the phone, held back until somebody can hear it."""

from __future__ import annotations

from offhook.media.port import MediaPort

__all__ = ["CallPlayout"]


class CallPlayout:
    """
    What a session plays into.

    An app may ask for a greeting the moment it has accepted (API row E13), before there is a media port or an
    ACK. What is played until `open` waits here, so that the first word is not cut off.
    """

    def __init__(self) -> None:
        self._port: MediaPort | None = None
        self._waiting = bytearray()

    def open(self, port: MediaPort) -> None:
        """The peer is there: play what has waited, and everything from now on directly."""
        if self._port is None:
            self._port = port
            if self._waiting:
                port.play(bytes(self._waiting))
                self._waiting.clear()

    def close(self) -> None:
        self._waiting.clear()

    def play(self, audio: bytes) -> None:
        if self._port is None:
            self._waiting += audio
        else:
            self._port.play(audio)

    def clear(self) -> int:
        """Drop what is queued; return how many bytes that was."""
        if self._port is not None:
            return self._port.clear()
        dropped = len(self._waiting)
        self._waiting.clear()
        return dropped

    @property
    def played_samples(self) -> int:
        return self._port.played_samples if self._port is not None else 0

    @property
    def queued_samples(self) -> int:
        return self._port.queued_samples if self._port is not None else len(self._waiting)
