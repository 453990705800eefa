"""What tcpdump sees of SIP over UDP on loopback: when an INVITE passed, and what answered it, by the kernel's clock."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

HEADER, RECORD = struct.Struct("<IHHiIII"), struct.Struct("<IIII")
NANOSECONDS = 0xA1B23C4D
HEADERS_BEFORE_SIP = 14 + 20 + 8
"Of Ethernet, which loopback imitates, IPv4 without options, and UDP."
SEEN = 400
"Bytes of each packet: the first line and the first Via are among them."


class SipCapture:
    """Captures from `start()` to `stop()`; then `delays()` are the seconds from each INVITE to an answer."""

    def __init__(self, file: Path, port: int, core: int) -> None:
        if not shutil.which("tcpdump"):
            raise SystemExit("tcpdump is missing: install Debian's tcpdump")
        self._file = file
        self._port = port
        self._core = core
        self.dropped = 0
        "Packets that tcpdump was too slow for."

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["taskset", "-c", str(self._core), "tcpdump", "-i", "lo", "-n", "-B", "16384", "-s", str(SEEN),
             "--time-stamp-precision=nano", "-w", str(self._file), "-Z", "root", f"udp port {self._port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), True)
        for line in self._process.stderr:
            if "listening on" in line:
                return
        raise SystemExit(f"tcpdump ended with {self._process.wait()}; it needs root")

    def stop(self) -> None:
        time.sleep(1.0)  # what it has in its buffer
        self._process.send_signal(signal.SIGINT)
        _, said = self._process.communicate(timeout=20)
        for line in said.splitlines():
            if "dropped by kernel" in line:
                self.dropped = int(line.split()[0])

    def delays(self, status: int) -> tuple[list[float], int]:
        """Return the delays until the first answer of this status, sorted, and how many INVITEs had none."""
        wanted = b"SIP/2.0 %d " % status
        sent: dict[bytes, int] = {}
        answered: dict[bytes, int] = {}
        for at, sip in self._packets():
            if sip.startswith(b"INVITE "):
                sent.setdefault(_branch(sip), at)
            elif sip.startswith(wanted):
                answered.setdefault(_branch(sip), at)
        delays = sorted((answered[branch] - at) / 1e9 for branch, at in sent.items() if branch in answered)
        return delays, len(sent) - len(delays)

    def _packets(self) -> Iterator[tuple[int, bytes]]:
        """Yield the time in nanoseconds and the beginning of each datagram."""
        data = self._file.read_bytes()
        magic, *_ = HEADER.unpack_from(data)
        assert magic == NANOSECONDS, f"{self._file}: no pcap with nanoseconds"
        offset = HEADER.size
        while offset + RECORD.size <= len(data):
            seconds, nanoseconds, kept, _ = RECORD.unpack_from(data, offset)
            offset += RECORD.size
            yield seconds * 1_000_000_000 + nanoseconds, data[offset + HEADERS_BEFORE_SIP : offset + kept]
            offset += kept


def _branch(sip: bytes) -> bytes:
    _, _, rest = sip.partition(b";branch=")
    end = min((at for at in (rest.find(mark) for mark in (b"\r", b";")) if at >= 0), default=len(rest))
    return rest[:end]


@contextlib.contextmanager
def capturing(file: Path, port: int, core: int) -> Iterator[SipCapture]:
    capture = SipCapture(file, port, core)
    capture.start()
    try:
        yield capture
    finally:
        capture.stop()
