"""
300 INVITEs in 3 s for an app whose endpoint takes five a second, while phones ring for 30 s.

Run by `make interop`; it needs nothing but Python packages, and takes some 80 s of real time, which is why
`tests/flow/test_failure_drills.py` has a fifth of it. Without a fallback no caller may get anything but what the app
decided or 480, and at least 140 calls must reach the app while they ring. With a fallback all 300 must be answered, and
hear a voice.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from testbed import Node
from testbed.overload import FALLBACK, Burst, Outcome

CALLS, WITHIN_S, PER_S, RING_S = 300, 3.0, 5.0, 30.0
MUST_REACH = 140


def main() -> int:
    faults = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        Node(Path(folder), seats=2, ring_timeout_s=RING_S, seat_lines={1: FALLBACK}) as node,
    ):
        # More pairs than a node's phones usually have, and none of the node's own: those it refuses to send sound to.
        node.phone_ports = ports_beside(node.media_ports)
        for number, name in enumerate(("without a fallback", "with a fallback")):
            began = time.monotonic()
            burst = Burst(node, node.seats[number], CALLS, WITHIN_S, PER_S, RING_S, accepts=number == 1)
            outcome = asyncio.run(burst.run())
            print(
                f"{name:20} {dict(sorted(outcome.statuses.items()))}, {len(outcome.reached)} reached the app, "
                f"{outcome.heard} heard a voice, {time.monotonic() - began:.0f} s",
                flush=True,
            )
            for fault in _faults(outcome, has_fallback=number == 1):
                faults += 1
                print(f"  FAULT: {fault}", flush=True)
    return min(faults, 1)


def ports_beside(ports: tuple[int, int]) -> tuple[int, int]:
    """Return a range of 499 pairs that shares none with the given one, below the ports that the system gives out."""
    return (20_000, 20_998) if ports[0] >= 21_000 else (31_000, 31_998)


def _faults(outcome: Outcome, *, has_fallback: bool) -> list[str]:
    found = {
        f"not every INVITE has its answer: {outcome.statuses.total()}": outcome.statuses.total() != CALLS,
        f"fewer than {MUST_REACH} reached the app": len(outcome.reached) < MUST_REACH,
    }
    if has_fallback:
        found["not all were answered"] = outcome.statuses[200] != CALLS
        found["not all heard a voice"] = outcome.heard != CALLS
    else:
        found["a status that nobody decided"] = not set(outcome.statuses) <= {480, 486}
    return [fault for fault, holds in found.items() if holds]


if __name__ == "__main__":
    sys.exit(main())
