"""The recording of one call: what may be asked of it, and what is known of it. Off until somebody says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from offhook.audio.frames import Law
from offhook.media.port import MediaPort
from offhook.media.tap import Tap

from .errors import CallError
from .timeline import Timeline

__all__ = ["CallRecording", "Recording", "RecordingAction", "RecordingState", "Recordings", "Sink"]


class RecordingState(StrEnum):
    RECORDING = "recording"
    PAUSED = "paused"
    SAVED = "saved"
    "To its end, and all of it is in the file."
    FAILED = "failed"
    "The disk was full, or could not be written: the file ends before its time."
    INTERRUPTED = "interrupted"
    "The node ended in the midst of it: the file ends before its time."

    @property
    def is_over(self) -> bool:
        return self not in (RecordingState.RECORDING, RecordingState.PAUSED)


class RecordingAction(StrEnum):
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Recording:
    """What is known of a recording. Times are Unix seconds."""

    id: str
    "`rec_...`, and the name of its file."
    call_id: str
    project_id: str
    state: RecordingState
    started_at: float
    ended_at: float | None = None
    duration_ms: int = 0
    "What is in the file so far."
    bytes: int = 0
    "The file's size."

    def to_api(self, url: str) -> dict[str, Any]:
        """Return the body of `GET .../recording`; `url` is where the sound can be had."""
        return {
            "id": self.id,
            "object": "realtime.call.recording",
            "call_id": self.call_id,
            "project_id": self.project_id,
            "state": self.state.value,
            "started_at": round(self.started_at, 3),
            "ended_at": round(self.ended_at, 3) if self.ended_at is not None else None,
            "duration_ms": self.duration_ms,
            "bytes": self.bytes,
            "channels": ["caller", "agent"],
            "url": url,
        }


class Sink(Protocol):
    """Where one recording goes. Never blocks, never raises."""

    @property
    def recording(self) -> Recording: ...

    def write(self, heard: bytes, sent: bytes) -> None:
        """Add so much of both sides, G.711 of the same length."""

    def mark(self, state: RecordingState) -> None:
        """Note that it is paused, or goes on."""

    def end(self) -> None:
        """There is no more."""


class Recordings(Protocol):
    """Keeps recordings; handed in."""

    def begin(
        self, call_id: str, project_id: str, law: Law, on_over: Callable[[Recording, str], None]
    ) -> Sink:
        """
        Open a file. `on_over` is told once, when nothing more comes and the file is closed: after `end`, or before it
        with the reason in words when the file cannot be written.
        """

    def url(self, call_id: str) -> str:
        """Return where a call's recording can be had."""


class CallRecording:
    """
    One call's recording, of which there is one at most.

    `on_over` is told of a file that can be fetched. A call goes on whatever becomes of its recording.
    """

    def __init__(
        self,
        call_id: str,
        project_id: str,
        timeline: Timeline,
        recordings: Recordings | None,
        *,
        at_once: bool,
        on_over: Callable[[dict[str, Any]], None],
    ) -> None:
        """`at_once`: from the answer on; else when the app says `start`. `recordings` is `None` where none are kept."""
        self._call_id = call_id
        self._project_id = project_id
        self._timeline = timeline
        self._recordings = recordings
        self._at_once = at_once
        self._on_over = on_over
        self._port: MediaPort | None = None
        self._law: Law = "PCMU"
        self._tap: Tap | None = None
        self._sink: Sink | None = None

    @property
    def current(self) -> Recording | None:
        """What is known of it now; `None` before it was started."""
        return self._sink.recording if self._sink is not None else None

    def media_started(self, port: MediaPort, law: Law) -> None:
        """The call's sound begins."""
        self._port, self._law = port, law
        if self._at_once and self._recordings is not None:
            self._start(self._recordings, port)

    def media_ended(self) -> None:
        """The call is over."""
        self._finish("the call is over")
        self._port = None

    def act(self, action: RecordingAction) -> Recording:
        """
        Start, pause, resume or stop; what is so already is done. Return what it is then.

        Raises `CallError` 409 for what does not fit.
        """
        if self._recordings is None:
            raise CallError(
                409,
                "This node keeps no recordings: server.database is none.",
                code="recording_unavailable",
            )
        if self._port is None:
            raise CallError(409, "The call has no media.", code="call_has_no_media")
        match action:
            case RecordingAction.START:
                self._begin(self._recordings, self._port)
            case RecordingAction.STOP:
                self._started()
                self._finish("stopped")
            case RecordingAction.PAUSE:
                self._suspend(RecordingState.PAUSED)
            case RecordingAction.RESUME:
                self._suspend(RecordingState.RECORDING)
        return self._started()

    def _started(self) -> Recording:
        if self._sink is None:
            raise CallError(
                409, "The call is not recorded. Start the recording first.", code="recording_not_started"
            )
        return self._sink.recording

    def _begin(self, recordings: Recordings, port: MediaPort) -> None:
        current = self.current
        if current is None:
            self._start(recordings, port)
        elif current.state.is_over or self._tap is None:
            raise CallError(
                409,
                "The call's recording is over, and a call has one. Use pause and resume for what is not to be in it.",
                code="recording_over",
            )
        elif current.state is RecordingState.PAUSED:
            raise CallError(409, "The recording is paused. Use resume.", code="recording_paused")

    def _start(self, recordings: Recordings, port: MediaPort) -> None:
        self._sink = sink = recordings.begin(self._call_id, self._project_id, self._law, self._over)
        self._tap = Tap(self._law, sink.write)
        port.record(self._tap)
        self._timeline.record("media", "recording started", recording=sink.recording.id)

    def _suspend(self, state: RecordingState) -> None:
        current, tap = self._started(), self._tap
        if tap is None or self._sink is None or current.state.is_over:
            raise CallError(409, "The call's recording is over.", code="recording_over")
        if current.state is state:
            return
        if state is RecordingState.PAUSED:
            tap.pause()
        else:
            tap.resume()
        self._sink.mark(state)
        said = "paused" if state is RecordingState.PAUSED else "goes on"
        self._timeline.record("media", f"recording {said}", recording=current.id, recorded_ms=tap.duration_ms)

    def _finish(self, why: str) -> None:
        tap, self._tap = self._tap, None
        if tap is None or self._sink is None:
            return
        if self._port is not None:
            self._port.record(None)
        tap.finish()
        self._sink.end()
        self._timeline.record(
            "media", f"recording ends: {why}", recording=self._sink.recording.id, recorded_ms=tap.duration_ms
        )

    def _over(self, recording: Recording, trouble: str) -> None:
        if trouble:
            self._finish(trouble)
        what = f"recording {recording.state}: {recording.duration_ms / 1000:.1f} s, {recording.bytes} bytes"
        self._timeline.record(
            "media",
            what + (f"; the rest is lost: {trouble}" if trouble else ""),
            recording=recording.id,
            state=recording.state.value,
            duration_ms=recording.duration_ms,
            bytes=recording.bytes,
            error=trouble or None,
        )
        if self._recordings is not None and recording.bytes:
            self._on_over(recording.to_api(self._recordings.url(self._call_id)))
