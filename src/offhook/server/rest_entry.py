"""What a call's timeline has of a request about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request

from offhook.calls.errors import CallError
from offhook.calls.timeline import Timeline
from offhook.clock import Clock

from .context import request_id_of

__all__ = ["RestEntry", "rest_entry"]


class RestEntry:
    """How a request is answered; an internal error until `answered` says something else."""

    def __init__(self) -> None:
        self.status, self.error = 500, "internal error"
        self.details: dict[str, Any] = {}
        "Whatever else the entry shall have."

    def answered(self, status: int, error: str = "") -> None:
        self.status, self.error = status, error


@contextlib.contextmanager
def rest_entry(
    timeline: Timeline, clock: Clock, verb: str, request: Request, *, started_at: float
) -> Iterator[RestEntry]:
    """Record `POST verb` with its answer, its request id and how long it took, once the block is left."""
    entry = RestEntry()
    try:
        yield entry
    except CallError as refusal:
        entry.answered(refusal.status, refusal.message)
        raise
    finally:
        status, error = entry.status, entry.error
        timeline.record(
            "rest",
            f"POST {verb}: {status}" + (f", {error}" if error else ""),
            at=started_at,
            verb=verb,
            status=status,
            error=error or None,
            request_id=request_id_of(request.scope),
            duration_ms=round((clock.monotonic() - started_at) * 1000, 1),
            **entry.details,
        )
