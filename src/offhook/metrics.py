"""
What a node counts as it goes, for `GET /metrics`. Pure: no clock, no thread, no network.

Only what nobody can be asked for later is counted here. All else (calls now, ports, the pacer's own counts) is read
when `/metrics` is asked for, by `offhook.node_metrics`.

Each name is declared in `FAMILIES` with its labels and their meaning: a value that a peer or an app chooses never
becomes a label, so that no traffic can make the number of series grow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["FAMILIES", "Counted", "Family", "Histogram", "Metrics"]

MAX_SERIES = 500
"Of one family. What is beyond is counted under labels that all say `other`: a fault here shall not fill a store."

QUICK = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"Seconds, for what machines do among themselves."
SLOW = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 8.0, 10.0, 15.0, 20.0, 30.0, 60.0)
"Seconds, for what an app or a person decides."
TURN = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"Seconds, for what a caller waits for in silence."
TALK = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: what it is called, which labels it has, and what it means."""

    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    "Upper ends, for a histogram; a counter has none."
    goes_down: bool = False
    "Whether it is how many there are now, and no counter."


FAMILIES: dict[str, Family] = {
    "offhook_sip_invite_response_seconds": Family(
        "From an INVITE for one of our projects to our first 100, 180 and 200.",
        ("response",),
        (*QUICK, 30.0),
    ),
    "offhook_call_decision_seconds": Family(
        "From an INVITE to its accept, by the app or the fallback.", (), SLOW
    ),
    "offhook_call_setup_seconds": Family(
        "From the accept to our 200: the engine's warming and a media port.", (), QUICK
    ),
    "offhook_call_duration_seconds": Family("From our 200 to the end of an answered call.", (), TALK),
    "offhook_calls_ended": Family(
        "Calls that are over, those that were turned away included.", ("reason", "result", "sip_status")
    ),
    "offhook_refer_updates": Family("Outcomes and progress of transfers.", ("status",)),
    "offhook_webhook_attempts": Family(
        "Attempts to deliver an event; no_answer is anything but an HTTP status.", ("type", "outcome")
    ),
    "offhook_webhook_attempt_seconds": Family("How long each attempt took.", ("outcome",), SLOW),
    "offhook_http_requests": Family(
        "REST requests and WebSocket handshakes, by the route's template.", ("method", "route", "status")
    ),
    "offhook_http_request_seconds": Family(
        "Until the response begins; of WebSockets, until the upgrade or its refusal.", ("route",), QUICK
    ),
    "offhook_websockets": Family(
        "WebSockets that are open now: sidebands of calls, and sessions without one.",
        ("kind",),
        goes_down=True,
    ),
    "offhook_rtp_packets": Family("RTP packets of calls, up to 5 s behind.", ("direction",)),
    "offhook_rtp_lost_packets": Family(
        "Packets that never came: in, seen by us; out, as the peer's RTCP reports it.", ("direction",)
    ),
    "offhook_rtp_late_packets": Family("Packets that came after their turn and were not heard."),
    "offhook_rtp_dropped_packets": Family("Packets that were not taken, by the reason.", ("reason",)),
    "offhook_rtp_jitter_seconds": Family(
        "Interarrival jitter (RFC 3550) of what comes in, looked at every 5 s of each call.",
        (),
        (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2),
    ),
    "offhook_call_mos": Family(
        "Estimated quality of a call's sound at its end, 1 to 4.4.",
        ("direction",),
        (1.5, 2.0, 2.5, 3.0, 3.5, 3.8, 4.0, 4.2),
    ),
    "offhook_recordings_ended": Family(
        "Recordings of calls that are over: saved, failed (disk) or interrupted (found at the start).",
        ("state",),
    ),
    "offhook_turn_seconds": Family(
        "From the caller's last word to each stage of the answer; first_played is what is heard.",
        ("stage",),
        TURN,
    ),
}
"Counters are shown with `_total` at the end, as the format has it."


class Histogram:
    """How many of what was observed fell under each upper end."""

    __slots__ = ("buckets", "counts", "sum")

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.buckets, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return `le` and the count of all that is not above it."""
        found: list[tuple[str, float]] = []
        total = 0
        for upper, count in zip((*self.buckets, float("inf")), self.counts, strict=True):
            total += count
            found.append(("+Inf" if upper == float("inf") else repr(float(upper)), total))
        return found


@dataclass(frozen=True, slots=True)
class Counted:
    """A family with what was counted, by the values of its labels."""

    name: str
    family: Family
    values: dict[tuple[str, ...], float]
    histograms: dict[tuple[str, ...], Histogram]


class Metrics:
    """
    The counts of one node. `count` and `observe` cost less than a microsecond.

    Both raise `KeyError` for a name that is not in `FAMILIES`, and `ValueError` for too few or too many labels.
    """

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], float]] = {
            name: {} for name, family in FAMILIES.items() if not family.buckets
        }
        self._histograms: dict[str, dict[tuple[str, ...], Histogram]] = {
            name: {} for name, family in FAMILIES.items() if family.buckets
        }

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        values = self._values[name]
        if labels not in values:
            labels = _admit(name, labels, len(values))
            values.setdefault(labels, 0)
        values[labels] += by

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Add one observation to a histogram."""
        histograms = self._histograms[name]
        histogram = histograms.get(labels)
        if histogram is None:
            labels = _admit(name, labels, len(histograms))
            histogram = histograms.setdefault(labels, Histogram(FAMILIES[name].buckets))
        histogram.observe(value)

    def counted(self) -> Iterator[Counted]:
        """Yield every family, also those that nothing was counted of yet."""
        for name, family in FAMILIES.items():
            # Copies: a thread may count while these are written out.
            yield Counted(
                name, family, dict(self._values.get(name, ())), dict(self._histograms.get(name, ()))
            )


def _admit(name: str, labels: tuple[str, ...], known: int) -> tuple[str, ...]:
    """Return the labels of a new series, or those of the series for everything past the limit."""
    if len(labels) != len(FAMILIES[name].labels):
        raise ValueError(f"{name} has the labels {FAMILIES[name].labels}, not {labels}")
    return labels if known < MAX_SERIES else ("other",) * len(labels)
