"""One answered call's sound: the port that carries it, what is played into it, its digits, and the watch over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from offhook.audio.frames import Law
from offhook.media.negotiate import MediaPlan
from offhook.media.port import MediaPort
from offhook.media.stats import MediaEvent
from offhook.sip.leg import Leg
from offhook.tenants import Project
from offhook.weak import weakly

from .dtmf import CallDigits
from .measured import MediaCounts
from .monitor import MediaMonitor
from .packet_capture import CallCapture
from .playout import CallPlayout
from .recording import CallRecording
from .services import CallServices
from .timeline import Timeline

__all__ = ["CallSound", "Listener"]


class Listener(Protocol):
    """Who hears the caller: the session's runner."""

    def receive_audio(self, audio: bytes) -> None: ...
    def receive_digit(self, digit: str) -> None: ...
    def playout_drained(self) -> None: ...
    def publish_extension(self, event: dict[str, Any]) -> None: ...


class CallSound:
    """
    Joins a call's port and its session, and steps aside.

    `playout` takes the agent's sound from the accept on; it is heard once `open` was called, or the caller's first
    packet is in. `on_timeout` is told in words when the caller's sound stays away, `on_recorded` of a recording that
    is saved.
    """

    def __init__(
        self,
        call_id: str,
        project: Project,
        leg: Leg,
        timeline: Timeline,
        services: CallServices,
        *,
        on_timeout: Callable[[str], None],
        on_recorded: Callable[[dict[str, Any]], None],
    ) -> None:
        self.playout = CallPlayout()
        self.digits = CallDigits(leg, timeline, services.clock, on_press=weakly(self._press))
        self.recording = CallRecording(
            call_id, project.id, timeline, services.recordings, at_once=project.record, on_over=on_recorded
        )
        self.capture = CallCapture(call_id, project.capture, timeline, services.captures)
        self._call_id = call_id
        self._timeline = timeline
        self._services = services
        self._on_timeout = on_timeout
        self._port: MediaPort | None = None
        self._listener: Listener | None = None
        self._monitor: MediaMonitor | None = None

    def start(self, port: MediaPort, listener: Listener, plan: MediaPlan, *, prompt: bool, law: Law) -> None:
        """Send and hear by what was agreed; `prompt` and `law` as for `MediaPort.start`."""
        port.start(
            plan,
            pacer=self._services.pacer,
            on_frame=listener.receive_audio,
            on_digit=self.digits.pressed,
            on_drained=listener.playout_drained,
            on_event=weakly(self._happened),
            prompt=prompt,
            law=law,
        )
        self._port = port
        self._listener = listener
        self.recording.media_started(port, law)
        self._monitor = MediaMonitor(
            port,
            self._services.clock,
            self._timeline,
            timeout_s=self._services.settings.media_timeout_s,
            on_update=weakly(self._updated),
            on_timeout=self._on_timeout,
            counts=MediaCounts(self._services.metrics),
        )

    def open(self) -> None:
        """The caller can hear us."""
        if self._port is not None:
            self.playout.open(self._port)
        if self._monitor is not None:
            self._monitor.expect()

    def close(self) -> None:
        """The call is over: say what became of its sound. The port is given back by who opened it."""
        self.playout.close()
        self.recording.media_ended()
        if self._monitor is not None:
            self._monitor.close()
        self._port = self._listener = None

    def forget(self) -> None:
        """Let go of the sound that is left."""
        self.playout = CallPlayout()

    def describe(self) -> dict[str, Any] | None:
        """Return the call's `media` object; `None` when it was never answered."""
        return self._monitor.describe() if self._monitor is not None else None

    def _happened(self, event: MediaEvent) -> None:
        self._timeline.record("media", event.text, at=event.at, event=event.kind)
        if event.kind == "receiving":
            # The caller's sound is here, so ours can be heard, whatever became of the ACK.
            self.open()

    def _press(self, digit: str) -> None:
        if self._listener is not None:
            self._listener.receive_digit(digit)

    def _updated(self, media: dict[str, Any]) -> None:
        if self._listener is not None:
            event = {"type": "call.media.updated", "call_id": self._call_id, "media": media}
            self._listener.publish_extension(event)
