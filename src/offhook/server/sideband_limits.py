"""How much one sideband may cost the node."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SidebandLimits"]


@dataclass(frozen=True, slots=True)
class SidebandLimits:
    per_call: int = 32
    "Sidebands attached to one call at a time."
    queued_frames: int = 4096
    queued_bytes: int = 16 * 1024 * 1024
    "A reader that falls further behind than either is dropped; the call goes on."
    drain_s: float = 10.0
    "How long the last events may take after the call's end."
