"""
What SRTP costs: microseconds for each packet of 20 ms, and the share of a core that one call's two directions take.

    python bench/srtp.py
"""

from __future__ import annotations

import os
import struct
import time

from offhook.media.crypto import SUITES, SrtpKeys
from offhook.media.srtp import Srtp

PACKETS = 50_000
A_SECOND = 50


def measure(name: str) -> tuple[float, float]:
    """Return the seconds for protecting and for opening one packet of 172 bytes."""
    suite = SUITES[name]
    mine, theirs = os.urandom(suite.length), os.urandom(suite.length)
    ours = Srtp(SrtpKeys(suite, send=mine, receive=theirs))
    peer = Srtp(SrtpKeys(suite, send=theirs, receive=mine))
    packets = [
        struct.pack("!BBHII", 0x80, 0, number & 0xFFFF, number * 160, 7) + bytes(160)
        for number in range(PACKETS)
    ]
    began = time.perf_counter()
    sealed = [ours.protect(packet) for packet in packets]
    half = time.perf_counter()
    opened = [peer.unprotect(packet) for packet in sealed]
    end = time.perf_counter()
    assert opened == packets
    return (half - began) / PACKETS, (end - half) / PACKETS


def main() -> None:
    for name in SUITES:
        protect, unprotect = min(measure(name) for _ in range(3))
        share = (protect + unprotect) * A_SECOND
        print(
            f"{name:26} {protect * 1e6:5.1f} us out, {unprotect * 1e6:5.1f} us in, {share:.3%} of a core a call"
        )


if __name__ == "__main__":
    main()
