"""A watch over one call's sound: how good it is, both ways, and whether any comes at all."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from offhook.clock import Clock
from offhook.media import quality
from offhook.media.negotiate import MediaPlan
from offhook.media.port import MediaPort
from offhook.media.stats import MediaStats

from .measured import MediaCounts
from .timeline import Timeline

__all__ = ["MediaMonitor"]

INTERVAL_S: Final = 5.0
"""How often the numbers are told. RTCP reports come about as often."""
SAMPLES_PER_MS: Final = 8


class MediaMonitor:
    """
    Watches a port that has been started, until `close`.

    `on_update` gets what `describe` returns every few seconds. `on_timeout` is called once, with the reason in words,
    when, from `expect` on, no RTP has come for `timeout_s` although the peer may send; 0 switches that off.
    """

    def __init__(
        self,
        port: MediaPort,
        clock: Clock,
        timeline: Timeline,
        *,
        timeout_s: float,
        on_update: Callable[[dict[str, Any]], None],
        on_timeout: Callable[[str], None],
        counts: MediaCounts,
    ) -> None:
        self._port: MediaPort | None = port
        self._counts = counts
        self._clock = clock
        self._timeline = timeline
        self._timeout_s = timeout_s
        self._on_update = on_update
        self._on_timeout = on_timeout
        self._expected_from: float | None = None
        self._before: MediaStats | None = None
        self._worst: float | None = None
        self._last: dict[str, Any] = {}
        self._loop = asyncio.get_running_loop()
        self._update_at = clock.monotonic() + INTERVAL_S
        self._timer: asyncio.TimerHandle | None = None
        self._arm()

    def expect(self) -> None:
        """The peer knows that it was answered: its sound is due. Before that, the missing ACK is what ends the call."""
        if self._expected_from is None and self._timer is not None:
            self._expected_from = self._clock.monotonic()
            if self._wakes_at() < self._update_at:
                self._timer.cancel()
                self._arm()

    def describe(self) -> dict[str, Any]:
        """Return the `media` object of `GET /v1/realtime/calls/{id}`; after `close`, as it was at the end."""
        if self._port is None:
            return self._last
        stats = self._port.stats()
        return self._describe(stats, quality.received(stats), self._port.plan)

    def _describe(self, stats: MediaStats, inbound: quality.Way, plan: MediaPlan) -> dict[str, Any]:
        outbound = quality.sent(stats, plan.ptime_ms)
        return {
            "direction": plan.direction,
            "held": plan.held,
            "ptime_ms": plan.ptime_ms,
            "telephone_event": plan.dtmf_payload_type,
            "remote": stats.remote,
            "rtt_ms": None if stats.rtt_ms is None else round(stats.rtt_ms, 1),
            "inbound": {**_fields_of_way(inbound), "late": stats.late, "mos_worst": self._worst},
            "outbound": _fields_of_way(outbound),
        }

    def close(self) -> None:
        """Put the totals on the timeline, and let go of the port."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._port is None:
            return
        stats = self._port.stats()
        self._counts.add(stats)
        inbound = quality.received(stats)
        self._note_worst(inbound if self._before is None else quality.received(stats, self._before))
        self._last = self._describe(stats, inbound, self._port.plan)
        played_ms = self._port.played_samples // SAMPLES_PER_MS
        self._port = None
        totals = f"rtp: {stats.packets_in} packets in, {stats.packets_out} out, {stats.lost} lost"
        heard, said = self._last["inbound"]["mos"], self._last["outbound"]["mos"]
        if heard is not None:
            totals += f", MOS {heard} in" + (f" and {said} out" if said is not None else "")
        self._timeline.record(
            "media", totals, **_fields_of_stats(stats), played_ms=played_ms, quality=self._last
        )

    def _arm(self) -> None:
        self._timer = self._loop.call_later(max(0.01, self._wakes_at() - self._clock.monotonic()), self._wake)

    def _wakes_at(self) -> float:
        silent_since = self._silent_since()
        return (
            self._update_at if silent_since is None else min(self._update_at, silent_since + self._timeout_s)
        )

    def _silent_since(self) -> float | None:
        """Return since when no RTP has come that might have; `None` while that is of no interest."""
        if self._port is None or self._expected_from is None or not self._timeout_s:
            return None
        if (expecting := self._port.expecting_since) is None:
            return None
        return max(expecting, self._expected_from, self._port.last_received_at or 0.0)

    def _wake(self) -> None:
        self._timer = None
        if self._port is None:
            return
        now = self._clock.monotonic()
        silent_since = self._silent_since()
        if silent_since is not None and now - silent_since >= self._timeout_s:
            self._time_out(silent_since, now)
            return
        if now >= self._update_at:
            self._update_at = now + INTERVAL_S
            self._update(self._port.stats())
        self._arm()

    def _update(self, stats: MediaStats) -> None:
        self._note_worst(quality.received(stats, self._before))
        self._counts.add(stats)
        self._before = stats
        self._on_update(self.describe())

    def _note_worst(self, lately: quality.Way) -> None:
        score = lately.mos
        if score is not None and (self._worst is None or score < self._worst):
            self._worst = score

    def _time_out(self, since: float, now: float) -> None:
        assert self._port is not None
        stats = self._port.stats()
        began = datetime.datetime.fromtimestamp(self._clock.wall() - (now - since), datetime.UTC)
        text = f"no RTP for {now - since:.0f} s, " + (
            f"after {stats.packets_in} packets" if stats.packets_in else "and none since the answer"
        )
        self._timeline.record(
            "media",
            text,
            event="media_timeout",
            since=began.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            packets_in=stats.packets_in,
            packets_out=stats.packets_out,
            foreign=stats.foreign,
            remote=stats.remote,
        )
        self._on_timeout(text)


def _reader(names: tuple[str, ...]) -> Callable[[object], dict[str, Any]]:
    """Return what does as `asdict`, at a twentieth of its cost: nothing in these lies deeper."""
    read = attrgetter(*names)
    return lambda counts: dict(zip(names, read(counts), strict=True))


_fields_of_stats, _fields_of_way = _reader(MediaStats.__slots__), _reader(quality.Way.__slots__)
