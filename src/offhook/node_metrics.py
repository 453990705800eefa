"""`GET /metrics`: what the rooms counted, and what they are asked for each time somebody looks."""

from __future__ import annotations

import asyncio
import gc
import platform
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from offhook import __version__
from offhook.calls.manager import CallManager
from offhook.media.pacer import Pacer
from offhook.media.port import PortPool
from offhook.metrics import Counted, Metrics
from offhook.realtime.directory import EngineDirectory
from offhook.registrations import TrunkRegistrations
from offhook.serving_certificate import ServingCertificate
from offhook.sip.endpoint import Endpoint
from offhook.store import Database
from offhook.webhooks.delivery import WebhookAnnouncer

__all__ = ["NodeMetrics"]


class Look(Collector):
    """What was so at one moment."""

    def __init__(self, counted: list[Counted], asked: list[Metric]) -> None:
        self._counted = counted
        self._asked = asked

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from map(_of_counted, self._counted)
        yield from self._asked


_STATES = ("ringing", "accepted", "answered", "active")


class NodeMetrics:
    """
    Everything that one node says about itself in numbers; `render` gives it in Prometheus' text format.

    The rooms are asked on the event loop, which takes a fraction of a millisecond, with 200 calls as with none; making
    text of it takes some 10 ms and is left to a thread.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        calls: CallManager,
        endpoint: Endpoint,
        pacer: Pacer,
        ports: PortPool,
        engines: EngineDirectory,
        webhooks: WebhookAnnouncer,
        database: Database | None,
        certificate: ServingCertificate,
        registrations: TrunkRegistrations,
        is_ready: Callable[[], bool],
        max_calls: int,
    ) -> None:
        self._metrics = metrics
        self._calls = calls
        self._endpoint = endpoint
        self._pacer = pacer
        self._ports = ports
        self._engines = engines
        self._webhooks = webhooks
        self._database = database
        self._certificate = certificate
        self._registrations = registrations
        self._is_ready = is_ready
        self._max_calls = max_calls
        self._process = ProcessCollector(registry=CollectorRegistry())

    async def render(self) -> bytes:
        return await asyncio.to_thread(_write, self.look(), self._process)

    def look(self) -> Look:
        """Take down what is so now."""
        asked = (self._of_node(), self._of_sip(), self._of_media(), self._of_engines(), self._of_store())
        return Look(list(self._metrics.counted()), list(chain.from_iterable(asked)))

    def _of_node(self) -> Iterator[Metric]:
        yield _gauge(
            "offhook_build_info",
            "Always 1; which version runs.",
            {(__version__, platform.python_version()): 1},
            ("version", "python"),
        )
        yield _gauge("offhook_ready", "1 while `/readyz` answers 200.", {(): self._is_ready()})
        states = self._calls.states()
        yield _gauge(
            "offhook_calls",
            "Calls that are not over, by state.",
            {(state,): states.get(state, 0) for state in _STATES},
            ("state",),
        )
        yield _gauge("offhook_calls_max", "calls.max_concurrent.", {(): self._max_calls})
        yield _gauge(
            "offhook_webhook_deliveries_waiting",
            "Deliveries under way or waiting for another attempt.",
            {(): self._webhooks.waiting},
        )
        yield _gauge(
            "offhook_tls_certificate_expiry_timestamp_seconds",
            "When the certificate of HTTPS and SIP over TLS ends.",
            {(): self._certificate.ends.timestamp()},
        )
        yield _counter(
            "offhook_gc_collections",
            "Collections of the Python garbage collector.",
            {(str(number),): stats["collections"] for number, stats in enumerate(gc.get_stats())},
            ("generation",),
        )

    def _of_sip(self) -> Iterator[Metric]:
        messages = self._endpoint.messages
        yield _counter(
            "offhook_sip_requests",
            "SIP requests on the wire, repeats included.",
            messages.requests,
            ("direction", "method"),
        )
        yield _counter(
            "offhook_sip_responses",
            "SIP responses on the wire, repeats included, by the method they answer.",
            messages.responses,
            ("direction", "method", "class"),
        )
        yield _counter(
            "offhook_sip_events",
            "What no call's timeline shows: malformed, stray and dropped messages, overload.",
            {(name,): count for name, count in self._endpoint.counters.items()},
            ("event",),
        )
        yield _counter(
            "offhook_sip_refused",
            "What was turned away before a call was made of it.",
            {(reason,): count for reason, count in self._calls.gate.refusals.items()},
            ("reason",),
        )
        states: dict[tuple[str, ...], float] = {}
        for registration in self._registrations.describe():
            key = (str(registration["state"]),)
            states[key] = states.get(key, 0) + 1
        yield _gauge(
            "offhook_registrations", "Trunks that register with a carrier, by state.", states, ("state",)
        )

    def _of_media(self) -> Iterator[Metric]:
        yield _gauge(
            "offhook_media_ports_free", "Pairs of media ports that no call has.", {(): self._ports.free}
        )
        yield _gauge("offhook_media_ports_max", "Pairs of media ports in all.", {(): self._ports.total})
        stats = self._pacer.stats
        yield _gauge(
            "offhook_paced_calls", "Calls that send a packet every 20 ms now.", {(): len(self._pacer)}
        )
        yield _counter(
            "offhook_pacer_late_wakes", "Wakes more than a frame (20 ms) late.", {(): stats.late_wakes}
        )
        yield _counter(
            "offhook_pacer_rounds",
            "Frames of all calls that were late: made up for at once, or left out.",
            {("caught_up",): stats.caught_up, ("skipped",): stats.skipped},
            ("outcome",),
        )
        yield _counter(
            "offhook_pacer_failures", "Frames that failed by a fault of ours.", {(): stats.failures}
        )
        yield _gauge("offhook_pacer_latest_seconds", "The latest wake since the start.", {(): stats.latest_s})

    def _of_engines(self) -> Iterator[Metric]:
        described = self._engines.describe()
        taken, slots, workers, replaced = {}, {}, {}, {}
        for engine in described:
            key = (str(engine["kind"]),)
            if "sessions" in engine:
                taken[key], slots[key] = _number(engine["sessions"]), _number(engine.get("max_sessions"))
            pools = engine.get("workers")
            for role, pool in pools.items() if isinstance(pools, Mapping) else ():
                workers[role,] = _number(pool.get("workers"))
                replaced[role,] = _number(pool.get("replaced"))
        yield _gauge(
            "offhook_engine_ready", "1 while every engine could serve a call.", {(): self._engines.ready}
        )
        yield _gauge("offhook_engine_sessions", "Sessions that an engine serves now.", taken, ("engine",))
        yield _gauge("offhook_engine_sessions_max", "Its places.", slots, ("engine",))
        yield _gauge("offhook_engine_workers", "Speech worker processes that are ready.", workers, ("role",))
        yield _counter(
            "offhook_engine_workers_replaced", "Workers that died or were stuck.", replaced, ("role",)
        )

    def _of_store(self) -> Iterator[Metric]:
        writer = self._database.writer if self._database is not None else None
        yield _gauge(
            "offhook_store_waiting",
            "Rows that are not committed yet.",
            {} if writer is None else {(): writer.waiting},
        )
        yield _gauge(
            "offhook_store_trouble",
            "1 while the database cannot be written.",
            {} if writer is None else {(): writer.trouble is not None},
        )
        yield _counter(
            "offhook_store_lost_rows",
            "Rows given up because the database could not be written.",
            {} if writer is None else {(): writer.lost},
        )
        commits = SummaryMetricFamily("offhook_store_commit_seconds", "Commits, and how long they took.")
        if writer is not None:
            commits.add_metric((), writer.commits, writer.commit_s)
        yield commits


def _write(look: Look, process: Collector) -> bytes:
    registry = CollectorRegistry()
    registry.register(look)
    registry.register(process)
    return generate_latest(registry)


def _of_counted(counted: Counted) -> Metric:
    name, family = counted.name, counted.family
    if family.buckets:
        histograms = HistogramMetricFamily(name, family.help, labels=family.labels)
        for labels, histogram in counted.histograms.items():
            histograms.add_metric(labels, histogram.cumulative(), histogram.sum)
        return histograms
    return (_gauge if family.goes_down else _counter)(name, family.help, counted.values, family.labels)


def _gauge(
    name: str, text: str, values: Mapping[Any, float], labels: tuple[str, ...] = ()
) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        gauge.add_metric(key, float(value))
    return gauge


def _counter(
    name: str, text: str, values: Mapping[Any, float], labels: tuple[str, ...] = ()
) -> CounterMetricFamily:
    counter = CounterMetricFamily(name, text, labels=labels)
    for key, value in list(values.items()):
        counter.add_metric(key, float(value))
    return counter


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
