"""
What Offhook adds between a phone and a hosted model: delay each way, time to silence, and CPU on one core.

`offhook serve` with engine `upstream`, an app that accepts and keeps a sideband attached to each call, and N calls
with marked PCMU both ways. The node is alone on one core; the peer (`marked_peer.py`), the upstream
(`upstream_mock.py`), the trunk and the app share the rest. Delays are whole, by CLOCK_MONOTONIC:

    up        the caller's packet leaves the peer -> the upstream has read the append with its sound
    down      the upstream writes a response's first delta -> its first RTP packet arrives (kernel's time)
    silence   the upstream writes `speech_started` -> the first silent RTP packet arrives

`held` is how long in a second the node could have run but something else had its core: on a quiet machine, some ms.
`direct` is the same upstream with clients (`upstream_direct.py`) on the node's core, no phone between: what the delays
would be without us. Run on a quiet machine:

    python bench/upstream_delay.py                 1, 10, 50 and 100 calls, about two minutes
    python bench/upstream_delay.py --check         the same; exits with 1 when a target is missed
    python bench/upstream_delay.py --calls 100 --seconds 20
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from marked_peer import MarkedRtpPeer
from marks import spread
from pacing import (
    APP_PORT,
    HTTP_PORT,
    KEY,
    SECRET,
    SIP_PORT,
    App,
    QuietServer,
    cpu_seconds,
    place,
    start_server,
)
from upstream_mock import UpstreamMock

from offhook.clock import SystemClock
from offhook.sip.endpoint import Endpoint, EndpointConfig
from offhook.sip.leg import Leg

CORES = sorted(os.sched_getaffinity(0))
WARM_UP_S = 1.5
TARGETS_MS = {"up": {"p50": 25, "p95": 45}, "down": {"p50": 25, "p95": 45}, "silence": {"max": 40}}
CONFIG = f"""
[server]
http = "127.0.0.1:{HTTP_PORT}"
https = ""
shutdown_grace_s = 0
[sip]
listen = ["udp:127.0.0.1:{SIP_PORT}"]
[media]
ports = "22000-23998"
[engine]
kind = "scripted"
[upstreams.mock]
url = "ws://127.0.0.1:MOCK/v1/realtime"
[models]
"measured" = "mock"
[[projects]]
id = "proj_bench"
api_keys = ["{KEY}"]
[[projects.trunks]]
sources = ["127.0.0.0/8"]
[[projects.webhooks]]
url = "http://127.0.0.1:{APP_PORT}/"
secret = "{SECRET}"
"""


class HostedApp(App):
    """Accepts every call for the upstream. The upstream talks by itself."""

    first_event: str | None = None

    def session(self, *, local: bool) -> dict[str, Any]:
        return {"type": "realtime", "model": "measured"}


@contextlib.contextmanager
def core_of_the_node() -> Iterator[None]:
    """What is started herein runs on the last core alone; we, and all that we start from then on, on the others."""
    os.sched_setaffinity(0, CORES[-1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES[:-1] or CORES)


async def measure(levels: list[int], seconds: float) -> list[dict[str, Any]]:
    """Return the figures for each number of calls on one node, fewest first, and those without it."""
    folder = Path(tempfile.mkdtemp(prefix="offhook-bench-"))
    mock = await UpstreamMock.start()
    with core_of_the_node():
        server = await start_server(folder, CONFIG.replace("MOCK", str(mock.port)))
    web = QuietServer(
        uvicorn.Config(
            HostedApp(), host="127.0.0.1", port=APP_PORT, lifespan="off", access_log=False, log_level="error"
        )
    )
    serving = asyncio.create_task(web.serve())
    peer = await MarkedRtpPeer.start(len(levels) * (seconds + 20) + 60)
    phone = Endpoint(EndpointConfig(listen=("udp:127.0.0.1:0",)), clock=SystemClock())
    await phone.start()
    legs: list[Leg] = []
    results = []
    try:
        for calls in sorted(levels):
            legs += [await place(phone, peer, number) for number in range(len(legs), calls)]
            await asyncio.sleep(WARM_UP_S)
            results.append(await measure_node(calls, seconds, server.pid, mock, peer))
            show(results[-1])
        for leg in legs:
            leg.hangup()
        await asyncio.sleep(1.0)
    finally:
        await phone.close()
        await peer.close()
        server.send_signal(signal.SIGTERM)
        await asyncio.wait_for(server.wait(), 30)
        web.should_exit = True
        await serving
    try:
        for calls in sorted({min(levels), max(levels)}):
            results.append(await measure_direct(calls, seconds / 2, mock))
            show(results[-1])
    finally:
        await mock.close()
    return results


def held_seconds(pid: int) -> float:
    """Return how long a process has waited for a core that others had."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


async def measure_node(
    calls: int, seconds: float, pid: int, mock: UpstreamMock, peer: MarkedRtpPeer
) -> dict[str, Any]:
    peer.reset()
    mock.reset()
    cpu, held, began = cpu_seconds(pid), held_seconds(pid), asyncio.get_running_loop().time()
    await asyncio.sleep(seconds)
    cpu, held = cpu_seconds(pid) - cpu, held_seconds(pid) - held
    elapsed = asyncio.get_running_loop().time() - began
    above, below = await mock.report(), await peer.report()
    spoken = {(call, number): times for call, number, *times in below["spoken"]}
    down = [1000 * (first - sent) for sent, first, _, _ in spoken.values()]
    silence = [
        1000 * (spoken[call, number][3] - at)
        for call, number, at in above["interruptions"]
        # One at the very end has no silent packet yet; one that was over before is no interruption.
        if (call, number) in spoken and spoken[call, number][3] > at
    ]
    return {
        "calls": calls,
        "up": above["up_ms"],
        "down": spread(down),
        "silence": spread(silence),
        "gap_ms": below["gap_ms"],
        "lost": {"up": above["lost"], "down": below["lost"], "silent_calls": below["silent"]},
        "odd": {
            "doubled": above["doubled"],
            "without a mark, up": above["unmarked"],
            "without a mark, down": below["unmarked"],
            "faults": above["faults"],
        },
        "truncations": above["truncations"],
        "node_cpu_percent": round(100 * cpu / elapsed, 1),
        "node_held_ms_per_s": round(1000 * held / elapsed, 1),
        "mock_cpu_percent": above["own_cpu_percent"],
        "peer_cpu_percent": below["own_cpu_percent"],
    }


async def measure_direct(calls: int, seconds: float, mock: UpstreamMock) -> dict[str, Any]:
    with core_of_the_node():
        clients = await asyncio.create_subprocess_exec(
            *(sys.executable, str(Path(__file__).with_name("upstream_direct.py"))),
            *(f"ws://127.0.0.1:{mock.port}/v1/realtime", "--calls", str(calls)),
            *("--seconds", str(seconds + WARM_UP_S)),
            stdout=asyncio.subprocess.PIPE,
        )
    await asyncio.sleep(WARM_UP_S)
    mock.reset()
    said, _ = await clients.communicate()
    above = await mock.report()
    return {"calls": calls, "direct": True, "up": above["up_ms"], "down": json.loads(said)}


COLUMNS = (
    f"{'':12} {'up, ms':^29}  {'down, ms':^29}  {'silence, ms':^19}  {'gap, ms':>8}  {'lost':>9}"
    f"  {'CPU of a core':>19}  {'held,':>6}\n"
    f"{'calls':12} {'p50':>6} {'p95':>6} {'p99':>7} {'max':>7}  {'p50':>6} {'p95':>6} {'p99':>7} {'max':>7}"
    f"  {'p50':>6} {'max':>6} {'n':>5}  {'p99':>8}  {'up / down':>9}  {'node':>8} {'per call':>10}  {'ms/s':>6}"
)


def show(result: dict[str, Any]) -> None:
    def figures(name: str) -> str:
        of = result[name]
        return f"{of['p50']:6.2f} {of['p95']:6.2f} {of['p99']:7.2f} {of['max']:7.2f}"

    if result.get("direct"):
        print(f"{result['calls']:4} direct  {figures('up')}  {figures('down')}", flush=True)
        return
    silence, cpu, lost = result["silence"], result["node_cpu_percent"], result["lost"]
    print(
        f"{result['calls']:4}         {figures('up')}  {figures('down')}"
        f"  {silence['p50'] or 0:6.2f} {silence['max'] or 0:6.2f} {silence['n']:5}"
        f"  {result['gap_ms']['p99']:8.2f}  {lost['up']:4} /{lost['down']:3}"
        f"  {cpu:6.1f} % {cpu / result['calls']:8.3f} %  {result['node_held_ms_per_s']:6.1f}",
        flush=True,
    )


def misses(results: list[dict[str, Any]]) -> Iterator[str]:
    """Say which targets were missed, and what else makes the figures worthless."""
    for result in results:
        if result.get("direct"):
            continue
        calls = f"{result['calls']} calls"
        for name, targets in TARGETS_MS.items():
            for share, most in targets.items():
                found = result[name][share]
                if found is None or found > most:
                    yield f"{calls}: {name} {share} is {found} ms, at most {most} wanted"
        for what, count in (result["lost"] | result["odd"]).items():
            if count:
                yield f"{calls}: {what}: {count}, none wanted"
        if result["truncations"] < result["silence"]["n"]:
            yield f"{calls}: {result['truncations']} truncations for {result['silence']['n']} interruptions"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, nargs="*", default=[1, 10, 50, 100])
    parser.add_argument("--seconds", type=float, default=15.0, help="measured for each number of calls")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--json", action="store_true", help="print the figures once more, as JSON")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, CORES[:-1] or CORES)
    print(COLUMNS, flush=True)
    results = uvloop.run(measure(arguments.calls, arguments.seconds))
    if arguments.json:
        print(json.dumps(results))
    missed = list(misses(results))
    print("\n".join(missed) or "every target is met")
    if arguments.check and missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
