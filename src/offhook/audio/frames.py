"""
The frame that everything on the phone side is counted in: 20 ms of 8 kHz sound.

G.711 carries one byte per sample, so a frame is 160 samples, 160 bytes and 160 ticks of the RTP clock.
"""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["FRAME_MS", "FRAME_SAMPLES", "SAMPLE_RATE", "SILENCE", "Law"]

Law = Literal["PCMU", "PCMA"]
"""The two companding laws of G.711, by their RTP names (RFC 3551 section 4.5.14)."""

SAMPLE_RATE: Final = 8000
FRAME_MS: Final = 20
FRAME_SAMPLES: Final = SAMPLE_RATE * FRAME_MS // 1000

SILENCE: Final[dict[Law, bytes]] = {"PCMU": b"\xff" * FRAME_SAMPLES, "PCMA": b"\xd5" * FRAME_SAMPLES}
"""One frame of silence in each law."""
