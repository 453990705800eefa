"""
werift-rtp (npm) and Offhook exchange SRTP and SRTCP, both ways, in each suite that werift has.

Run by `make interop`. Neither side has any of the other's code: ours is libsrtp, theirs is TypeScript. 3,000 packets
cross the wrap of the sequence number, a twentieth is lost and some change places; one in a hundred has a bit turned
and must be refused.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from offhook.media.crypto import SUITES, SrtpKeys
from offhook.media.srtp import Srtp

HERE = Path(__file__).parent / "werift"
THEIR_SUITES = ("AES_CM_128_HMAC_SHA1_80", "AEAD_AES_128_GCM")
FIRST, PACKETS, REPORTS = 64_000, 3_000, 50
SSRC = 0xCAFE0001


def rtp(number: int) -> bytes:
    head = struct.pack("!BBHII", 0x80, 0, number & 0xFFFF, number * 160 & 0xFFFFFFFF, SSRC)
    return head + bytes((number + at) & 0xFF for at in range(160))


def rtcp(number: int) -> bytes:
    source = struct.pack("!BBHI", 0x80, 200, 6, SSRC) + struct.pack(
        "!IIIII", 1, 2, number * 160, number, number
    )
    return source + struct.pack("!BBHIBB2s", 0x81, 202, 3, SSRC, 1, 1, b"x\0") + bytes(4)


def spoil(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def on_the_way(numbers: range, fate: random.Random) -> list[int]:
    """Return which packets arrive, and in what order."""
    late = [(number + fate.choice((0, 0, 0, 5)), number) for number in numbers if fate.random() >= 0.05]
    return [number for _, number in sorted(late)]


def ask(request: dict[str, Any]) -> dict[str, list[str]]:
    done = subprocess.run(
        ["node", "peer.mjs"], cwd=HERE, input=json.dumps(request).encode(), capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"node ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
    answer: dict[str, list[str]] = json.loads(done.stdout)
    return answer


def exchange(name: str) -> list[str]:
    """Run one suite. Returns what was wrong."""
    suite, fate = SUITES[name], random.Random(name)
    mine, theirs = os.urandom(suite.length), os.urandom(suite.length)
    ours = Srtp(SrtpKeys(suite, send=mine, receive=theirs))
    numbers, reports = range(FIRST, FIRST + PACKETS), range(1, REPORTS + 1)
    arrives = on_the_way(numbers, fate)
    # All are protected in order, whatever becomes of them on the way.
    sealed = {number: ours.protect(rtp(number)) for number in numbers}
    spoiled = {number for number in arrives if fate.random() < 0.01}
    answer = ask(
        {
            "suite": name,
            "local": theirs.hex(),
            "remote": mine.hex(),
            "rtp": [rtp(number).hex() for number in numbers],
            "rtcp": [rtcp(number).hex() for number in reports],
            "srtp": [
                (spoil(sealed[number]) if number in spoiled else sealed[number]).hex() for number in arrives
            ],
            "srtcp": [ours.protect_rtcp(rtcp(number)).hex() for number in reports],
        }
    )
    opened = sum(
        data == rtp(number).hex()
        for number, data in zip(arrives, answer["srtp"], strict=True)
        if number not in spoiled
    )
    refused = sum(
        data.startswith("error")
        for number, data in zip(arrives, answer["srtp"], strict=True)
        if number in spoiled
    )
    heard_reports = sum(
        data == rtcp(number).hex() for number, data in zip(reports, answer["srtcp"], strict=True)
    )
    came = {number: bytes.fromhex(data) for number, data in zip(numbers, answer["rtp"], strict=True)}
    turned = [number for number in arrives if number in spoiled]
    taken_spoiled = sum(ours.unprotect(spoil(came[number])) is not None for number in turned)
    taken = sum(ours.unprotect(came[number]) == rtp(number) for number in arrives)
    replayed = sum(ours.unprotect(came[number]) is not None for number in arrives[-100:])
    taken_reports = sum(
        ours.unprotect_rtcp(bytes.fromhex(data)) == rtcp(number)
        for number, data in zip(reports, answer["rtcp"], strict=True)
    )
    clean = len(arrives) - len(spoiled)
    print(
        f"{name:26} to werift: {opened}/{clean} opened, {refused}/{len(spoiled)} spoiled refused, "
        f"{heard_reports}/{REPORTS} reports; from werift: {taken}/{len(arrives)} opened, "
        f"{len(turned) - taken_spoiled}/{len(turned)} spoiled refused, {taken_reports}/{REPORTS} reports, "
        f"{replayed} replays taken",
        flush=True,
    )
    wanted = (clean, len(spoiled), REPORTS, len(arrives), 0, REPORTS, 0)
    got = (opened, refused, heard_reports, taken, taken_spoiled, taken_reports, replayed)
    return [] if got == wanted else [f"{name}: {got}, not {wanted}"]


def main() -> None:
    for tool, package in (("node", "nodejs"), ("npm", "npm")):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is missing: install Debian's {package}")
    subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=HERE, check=True, timeout=120, stdout=sys.stderr,
    )  # fmt: skip
    version = json.loads((HERE / "node_modules/werift-rtp/package.json").read_text())["version"]
    print(f"werift-rtp {version}", flush=True)
    faults = [fault for suite in THEIR_SUITES for fault in exchange(suite)]
    if faults:
        raise SystemExit("\n".join(faults))


if __name__ == "__main__":
    main()
