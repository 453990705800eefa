"""
How a call sounds, estimated from loss, delay and jitter: the E-model (ITU-T G.107), simplified for G.711.

    R = 93.2 - Id - Ie,eff                               all other impairments at their defaults
    Id = 0.024 d + 0.11 max(0, d - 177.3)                d: mouth to ear, in ms (Cole and Rosenbluth, 2001)
    Ie,eff = 95 Ppl / (Ppl + Bpl)                        G.113 appendix I: Ie 0; Ppl in percent, taken as random
    MOS = 1 + 0.035 R + R (R - 60) (100 - R) 7e-6        G.107 annex B; RFC 3611 section 4.7.5 calls it MOS-CQ

Bpl is 25.1, for G.711 with loss concealment: this end has it, and nearly all phones do. 4.41 is the best there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from offhook.audio.frames import FRAME_MS
from offhook.media.stats import MediaStats

__all__ = ["Way", "mean_opinion", "r_factor", "received", "sent"]

BEST_R: Final = 93.2
ROBUSTNESS: Final = 25.1
_FAR_MS: Final = 177.3
_LEAST_BUFFER_MS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a call's sound. What is not known is `None`: a peer without RTCP says nothing."""

    packets: int
    lost: int | None
    loss_percent: float | None
    jitter_ms: float | None
    mos: float | None


def r_factor(loss_percent: float, delay_ms: float) -> float:
    """Return the E-model's R, 0 to 93.2, for G.711."""
    delayed = 0.024 * delay_ms + 0.11 * max(0.0, delay_ms - _FAR_MS)
    equipment = 95 * loss_percent / (loss_percent + ROBUSTNESS)
    return min(BEST_R, max(0.0, BEST_R - delayed - equipment))


def mean_opinion(r: float) -> float:
    """Return the mean opinion score, 1 to 4.5, that an R stands for."""
    if r <= 0:
        return 1.0
    return max(1.0, min(4.5, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6))


def received(stats: MediaStats, since: MediaStats | None = None) -> Way:
    """Return how we hear the peer, from the start or since an earlier count. What came too late counts as lost."""
    packets, lost = stats.packets_in, stats.lost
    missed = lost + stats.late
    if since is not None:
        packets -= since.packets_in
        lost = max(0, lost - since.lost)
        missed = max(0, missed - since.lost - since.late)
    if not packets:
        return Way(0, lost, None, None, None)
    loss = _percent(missed, packets + lost)
    delay = (stats.rtt_ms or 0.0) / 2 + FRAME_MS + max(0, stats.buffer_ms)
    return _way(packets, lost, loss, stats.jitter_ms, delay)


def sent(stats: MediaStats, ptime_ms: int = FRAME_MS) -> Way:
    """Return how the peer hears us, by its newest RTCP report about us."""
    if stats.remote_lost is None or not stats.packets_reported:
        return Way(stats.packets_out, None, None, None, None)
    lost = max(0, stats.remote_lost)
    jitter = stats.remote_jitter_ms or 0.0
    # Its buffer is not told; twice its jitter is what adaptive ones settle at.
    delay = (stats.rtt_ms or 0.0) / 2 + ptime_ms + max(_LEAST_BUFFER_MS, 2 * jitter)
    return _way(stats.packets_out, lost, _percent(lost, stats.packets_reported), jitter, delay)


def _percent(part: int, whole: int) -> float:
    return min(100.0, 100 * part / whole) if whole > 0 else 0.0


def _way(packets: int, lost: int, loss: float, jitter: float, delay: float) -> Way:
    score = mean_opinion(r_factor(loss, delay))
    return Way(packets, lost, round(loss, 2), round(jitter, 1), round(score, 2))
