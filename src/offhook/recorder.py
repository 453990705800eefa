"""Joins what keeps recordings and packets to the configuration, and to who is told of what a crash has cut off."""

from __future__ import annotations

from pathlib import Path

from offhook import ids
from offhook.calls.news import RECORDING_SAVED, recording_data
from offhook.calls.ports import Announcer, WebhookEvent
from offhook.calls.recording import Recording, RecordingState
from offhook.clock import Clock
from offhook.config import Config
from offhook.metrics import Metrics
from offhook.store import Database
from offhook.store.captures import CaptureStore
from offhook.store.recordings import RecordingSettings, RecordingStore
from offhook.tenants import Projects

__all__ = ["open_captures", "open_recordings"]


def open_recordings(
    config: Config,
    database: Database | None,
    announcer: Announcer,
    projects: Projects,
    clock: Clock,
    metrics: Metrics,
) -> RecordingStore | None:
    """Return what keeps this node's recordings, not yet started; `None` without a database."""
    if database is None:
        return None
    table = config.recording
    settings = RecordingSettings(
        folder=Path(table.dir or config.server.data_dir / "recordings").absolute(),
        keep_days=table.keep_days,
        min_free=table.min_free_mb * 1024 * 1024,
    )

    def interrupted(recording: Recording) -> None:
        project = projects.by_id(recording.project_id)
        if project is None:
            return
        data = recording_data(recording.to_api(store.url(recording.call_id)))
        announcer.announce(
            project,
            WebhookEvent(ids.opaque_id("evt"), RECORDING_SAVED, int(clock.wall()), data),
            urgent=False,
            on_attempt=lambda attempt: None,
            on_exhausted=lambda reason: None,
        )

    for state in RecordingState:
        if state.is_over:  # a rate has no beginning to be told from, if the first failure makes the series
            metrics.count("offhook_recordings_ended", state.value, by=0)

    def over(recording: Recording) -> None:
        metrics.count("offhook_recordings_ended", recording.state.value)

    store = RecordingStore(database, settings, clock, on_interrupted=interrupted, on_over=over)
    return store


def open_captures(config: Config, clock: Clock) -> CaptureStore:
    """Return what keeps the packets of calls, not yet started. It writes nothing until a project's call wants it."""
    return CaptureStore(
        (config.server.data_dir / "captures").absolute(),
        clock,
        keep_days=config.server.keep_days,
        min_free=config.recording.min_free_mb * 1024 * 1024,
    )
