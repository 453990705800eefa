"""
What metrics cost: one scrape with many calls' worth of state, and what each call adds to the loop's work.

    python bench/metrics_cost.py --calls 200
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from types import SimpleNamespace as Fake
from typing import Any, cast

from offhook.calls.journal import NoJournal
from offhook.calls.measured import MeasuredJournal, MediaCounts
from offhook.calls.timeline import TimelineEntry
from offhook.media.pacer import PacerStats
from offhook.media.stats import MediaStats
from offhook.metrics import Metrics
from offhook.node_metrics import NodeMetrics
from offhook.sip.message_counts import MessageCounts

REQUEST = (
    b"INVITE sip:proj@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nCSeq: 1 INVITE\r\n"
    + b"X: y\r\n" * 90
)
RESPONSE = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nCSeq: 1 INVITE\r\n" + b"X: y\r\n" * 90


def story(call_id: str, at: float) -> list[TimelineEntry]:
    """A call with ten turns, as its timeline tells it."""

    def sip(direction: str, line: str, method: str = "INVITE") -> TimelineEntry:
        message = f"{line}\r\nVia: x\r\n{'X: y' * 150}\r\nCSeq: 1 {method}\r\n\r\n"
        return TimelineEntry(at, "sip", line, {"direction": direction, "message": message})

    entries = [
        sip("in", "INVITE sip:proj@h SIP/2.0"),
        sip("out", "SIP/2.0 100 Trying"),
        sip("out", "SIP/2.0 180 Ringing"),
        TimelineEntry(at, "webhook", "attempt 1", {"status": 200}),
        TimelineEntry(at, "call", "accepted", {"model": "m"}),
        sip("out", "SIP/2.0 200 OK"),
        sip("in", "ACK sip:x SIP/2.0", "ACK"),
    ]
    turn = {"committed_ms": 500.0, "first_text_ms": 700.0, "first_audio_ms": 800.0, "first_played_ms": 900.0}
    entries += [TimelineEntry(at, "turn", "answered", turn)] * 10
    entries += [TimelineEntry(at, "session", "said", {})] * 30
    entries += [
        sip("in", "BYE sip:x SIP/2.0", "BYE"),
        sip("out", "SIP/2.0 200 OK", "BYE"),
        TimelineEntry(at, "media", "rtp", {"quality": {"inbound": {"mos": 4.1}, "outbound": {"mos": 4.0}}}),
        TimelineEntry(at, "call", "ended", {"result": "success", "reason": "remote_hangup"}),
    ]
    return entries


def node(metrics: Metrics, calls: int) -> NodeMetrics:
    messages = MessageCounts()
    for method in ("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REFER", "NOTIFY", "UPDATE", "INFO"):
        for direction in ("in", "out"):
            messages.requests[direction, method] = 12345
            for kind in ("1xx", "2xx", "4xx", "5xx", "6xx"):
                messages.responses[direction, method, kind] = 12345
    pools = {role: {"workers": 2, "replaced": 0} for role in ("vad", "stt", "tts")}
    engine = {"kind": "local", "sessions": calls, "max_sessions": calls, "workers": pools}
    live = [Fake(state=Fake(value="active")) for _ in range(calls)]
    from collections import Counter

    parts: dict[str, Any] = {
        "calls": Fake(
            states=lambda: Counter(call.state.value for call in live),
            gate=Fake(refusals=Counter(not_listed=9, unknown_project=3)),
        ),
        "endpoint": Fake(messages=messages, counters=Counter(malformed=2, dropped=1)),
        "pacer": type("P", (), {"stats": PacerStats(), "__len__": lambda _: calls})(),
        "ports": Fake(free=100, total=500),
        "engines": Fake(describe=lambda: [engine], ready=True),
        "webhooks": Fake(waiting=3),
        "database": Fake(writer=Fake(waiting=2, trouble=None, lost=0, commits=10, commit_s=0.1)),
        "certificate": Fake(ends=Fake(timestamp=lambda: 2e9)),
        "registrations": Fake(describe=list),
    }
    return NodeMetrics(metrics, **cast(Any, parts), is_ready=lambda: True, max_calls=400)


def timed(work: Any, times: int) -> list[float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    calls = parser.parse_args().calls
    metrics = Metrics()
    bare, measured = NoJournal(), MeasuredJournal(NoJournal(), metrics)
    stories = [story(f"rtc_{number}", 1.0) for number in range(calls)]

    def tell(journal: Any) -> None:
        for number, entries in enumerate(stories):
            for index, entry in enumerate(entries):
                journal.entry(f"rtc_{number}", index, entry.at, entry)

    without, with_metrics = min(timed(lambda: tell(bare), 5)), min(timed(lambda: tell(measured), 5))
    per_call = (with_metrics - without) / calls
    stats = MediaStats(**cast(Any, dict.fromkeys(MediaStats.__slots__, 0) | {"jitter_ms": 2.0}))
    counts = MediaCounts(metrics)
    look = min(timed(lambda: [counts.add(stats) for _ in range(1000)], 5)) / 1000
    for route in range(30):
        for status in ("2xx", "4xx", "5xx"):
            metrics.count("offhook_http_requests", "POST", f"/r{route}", status)
        metrics.observe("offhook_http_request_seconds", 0.1, f"/r{route}")
    messages = MessageCounts()
    wire = min(timed(lambda: [messages.count("in", data) for data in (REQUEST, RESPONSE) * 500], 5)) / 1000
    request = (
        min(timed(lambda: [metrics.observe("offhook_turn_seconds", 0.5, "x") for _ in range(1000)], 5)) / 1000
    )
    exposition = node(metrics, calls)
    looks = timed(exposition.look, 100)
    scrapes = timed(lambda: asyncio.run(exposition.render()), 100)
    text = asyncio.run(exposition.render())
    print(
        f"one scrape, {calls} calls: {statistics.median(looks) * 1000:.2f} ms on the event loop, "
        f"{statistics.median(scrapes) * 1000:.2f} ms in all "
        f"(worst of 100: {max(scrapes) * 1000:.2f} ms), {len(text) / 1000:.0f} kB, "
        f"{sum(not line.startswith(b'#') for line in text.splitlines())} series"
    )
    print(f"one call of {len(stories[0])} timeline entries: {per_call * 1e6:.0f} us in all")
    print(f"one look at a call's sound (every 5 s): {look * 1e6:.1f} us")
    print(f"one SIP message: {wire * 1e6:.2f} us; one observation: {request * 1e6:.2f} us")


if __name__ == "__main__":
    main()
