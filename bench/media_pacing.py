"""
What the media room alone costs, and how evenly it sends.

N ports with PCMU both ways, against a peer in a process of its own (`rtp_peer.py`), which measures the gaps between our
packets by the kernel's clock. No SIP, no HTTP, no session: those come on top in `pacing.py`.

    python bench/media_pacing.py                     10, 50, 100, 200 ports
    python bench/media_pacing.py --ports 200 --seconds 8
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from typing import Any

import uvloop
from rtp_peer import RtpPeer, speechlike

from offhook.media.negotiate import MediaPlan
from offhook.media.pacer import Pacer
from offhook.media.port import MediaPort, PortPool

WARM_UP_S = 1.0


class Call:
    """One port that hears everything and never stops talking."""

    def __init__(self, port: MediaPort, plan: MediaPlan, pacer: Pacer, speech: bytes) -> None:
        self.port = port
        self.speech = speech
        self.heard = 0
        port.start(plan, pacer=pacer, on_frame=self.hear, on_digit=print, on_drained=self.talk)
        self.talk()

    def hear(self, frame: bytes) -> None:
        self.heard += len(frame)

    def talk(self) -> None:
        self.port.play(self.speech)


async def measure(count: int, seconds: float) -> dict[str, Any]:
    """Return the figures for a number of ports."""
    peer = await RtpPeer.start(WARM_UP_S + seconds + 10)
    pool = PortPool("127.0.0.1", 40000, 40000 + 4 * count + 10)
    pacer = Pacer()
    pacer.start()
    plan = MediaPlan(
        codec="PCMU",
        payload_type=0,
        dtmf_payload_type=101,
        remote=(peer.host, peer.port),
        remote_rtcp=(peer.host, peer.port + 1),
        dtmf_receive=frozenset({101}),
    )
    speech = b"".join(speechlike())
    calls = [Call(pool.open(), plan, pacer, speech) for _ in range(count)]
    for call in calls:
        peer.add(call.port.host, call.port.port)
    gc.collect()
    gc.freeze()
    await asyncio.sleep(WARM_UP_S)
    peer.reset()
    heard = sum(call.heard for call in calls)
    cpu, began = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    cpu, elapsed = time.process_time() - cpu, time.monotonic() - began
    heard = sum(call.heard for call in calls) - heard
    figures = await peer.report()
    stats = [call.port.stats() for call in calls]
    for call in calls:
        call.port.close()
    pacer.close()
    await peer.close()
    return {
        "ports": count,
        "cpu_percent_of_a_core": round(100 * cpu / elapsed, 2),
        "cpu_percent_per_call": round(100 * cpu / elapsed / count, 4),
        "us_per_call_and_frame": round(1e6 * cpu / (elapsed / 0.02 * count), 1),
        "heard_share": round(heard / (elapsed * 8000 * count), 4),
        "concealed": sum(each.concealed for each in stats),
        "lost": sum(each.lost for each in stats),
        "late": sum(each.late for each in stats),
        "pacer": {"late_wakes": pacer.stats.late_wakes, "skipped": pacer.stats.skipped},
        "peer": figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ports", type=int, nargs="*", default=[10, 50, 100, 200])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for count in arguments.ports:
        result = uvloop.run(measure(count, arguments.seconds))
        if arguments.json:
            print(json.dumps(result), flush=True)
            continue
        gap, peer = result["peer"]["gap_ms"], result["peer"]
        print(
            f"{count:4} ports: {result['cpu_percent_per_call']:.4f} % of a core per call"
            f" ({result['us_per_call_and_frame']} us a frame),"
            f" send gap p50 {gap['p50']:.2f} p99 {gap['p99']:.2f} max {gap['max']:.2f} ms,"
            f" lost out {peer['lost']} in {result['lost']}, concealed {result['concealed']}, late {result['late']},"
            f" heard {result['heard_share']:.4f} (peer {peer['own_cpu_percent']} % of a core)",
            flush=True,
        )


if __name__ == "__main__":
    main()
