"""
The far end of many calls' sound, as a process of its own: sends PCMU to every stream and times what comes back.

All streams share one socket. Arrival times are the kernel's (SO_TIMESTAMPNS), so this process may read late
and still measure well; it wakes every millisecond and takes what is there.

As a script it obeys one JSON object per line on stdin and answers on stdout, and ends with stdin or after `--seconds`:

    {"add": ["127.0.0.1", 20000]}    start sending to this address; what comes from it is measured
    {"remove": [...]}
    {"reset": true}                  forget what was measured
    {"report": true}                 answers with the figures

The first line it prints is `{"host": ..., "port": ...}`. From asyncio, use `RtpPeer`.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import json
import math
import os
import random
import select
import socket
import struct
import sys
import time
from typing import Any

SO_TIMESTAMPNS = 35
HEADER = struct.Struct("!BBHII")
TIMESPEC = struct.Struct("qq")
FRAME_S = 0.020
SLOTS = 20
BUFFER = 4 << 20
LONGEST_LINE = 64 << 20


def speechlike() -> list[bytes]:
    """Return two seconds of PCMU frames: a warbling tone that comes and goes."""
    from offhook.audio import g711, tones

    sound = b"".join(
        g711.encode(tones.tone((180.0 + 40 * (step % 5), 700.0 + 90 * (step % 3)), 100, level=0.2), "PCMU")
        if step % 7
        else b"\xff" * 800
        for step in range(20)
    )
    return [sound[at : at + 160] for at in range(0, len(sound), 160)]


class Stream:
    """One call: what is sent to it, and what came from it."""

    __slots__ = (
        "last_at",
        "last_sequence",
        "lost",
        "received",
        "sequence",
        "slot",
        "ssrc",
        "target",
        "timestamp",
    )

    def __init__(self, target: tuple[str, int], slot: int) -> None:
        self.target = target
        self.slot = slot
        self.ssrc = random.getrandbits(32)
        self.sequence = random.getrandbits(16)
        self.timestamp = random.getrandbits(32)
        self.forget()

    def forget(self) -> None:
        self.last_at = 0.0
        self.last_sequence = -1
        self.lost = 0
        self.received = 0


class Peer:
    """The process's work."""

    def __init__(self, host: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))
        self.streams: dict[tuple[str, int], Stream] = {}
        self.ring: list[list[Stream]] = [[] for _ in range(SLOTS)]
        self.gaps = array.array("d")
        self.frames = speechlike()
        self.sent = 0
        self.begun = 0.0
        self.cpu = 0.0

    def obey(self, command: dict[str, Any]) -> dict[str, Any] | None:
        if target := command.get("add"):
            self.add((target[0], target[1]))
        if (target := command.get("remove")) and (gone := self.streams.pop((target[0], target[1]), None)):
            self.ring[gone.slot].remove(gone)
        if command.get("reset"):
            self.reset()
        return self.report() if command.get("report") else None

    def add(self, target: tuple[str, int]) -> None:
        slot = min(range(SLOTS), key=lambda index: len(self.ring[index]))
        self.streams[target] = stream = Stream(target, slot)
        self.ring[slot].append(stream)

    def reset(self) -> None:
        self.gaps = array.array("d")
        self.sent = 0
        self.begun, self.cpu = time.monotonic(), time.process_time()
        for stream in self.streams.values():
            stream.forget()

    def report(self) -> dict[str, Any]:
        gaps = sorted(self.gaps)
        elapsed = time.monotonic() - self.begun
        streams = self.streams.values()
        return {
            "streams": len(streams),
            "seconds": round(elapsed, 3),
            "sent": self.sent,
            "received": sum(stream.received for stream in streams),
            "lost": sum(stream.lost for stream in streams),
            "silent": sum(not stream.received for stream in streams),
            "gap_ms": {
                name: round(1000 * gaps[math.ceil(share * len(gaps)) - 1], 3) if gaps else None
                for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0))
            },
            "gaps_over_ms": {str(ms): sum(gap > ms / 1000 for gap in gaps) for ms in (22, 25, 30, 40)},
            "own_cpu_percent": round(100 * (time.process_time() - self.cpu) / elapsed, 1),
        }

    def send_slot(self, slot: int) -> None:
        frame = self.frames[slot // SLOTS % len(self.frames)]
        pack, sendto = HEADER.pack, self.socket.sendto
        for stream in self.ring[slot % SLOTS]:
            stream.sequence = sequence = stream.sequence + 1 & 0xFFFF
            stream.timestamp = timestamp = stream.timestamp + 160 & 0xFFFFFFFF
            try:
                sendto(pack(0x80, 0, sequence, timestamp, stream.ssrc) + frame, stream.target)
            except OSError:
                continue
            self.sent += 1

    def receive(self) -> None:
        recvmsg, streams, note = self.socket.recvmsg, self.streams, self.gaps.append
        try:
            while True:
                data, ancillary, _, source = recvmsg(2048, 64)
                stream = streams.get(source)
                if stream is None or len(data) < 12:
                    continue
                seconds, nanoseconds = TIMESPEC.unpack_from(ancillary[0][2])
                at = seconds + nanoseconds * 1e-9
                sequence = data[2] << 8 | data[3]
                if stream.received:
                    note(at - stream.last_at)
                    stream.lost += (sequence - stream.last_sequence & 0xFFFF) - 1
                stream.received += 1
                stream.last_at = at
                stream.last_sequence = sequence
                self.took(stream, data, at)
        except BlockingIOError:
            return

    def took(self, stream: Stream, data: bytes, at: float) -> None:
        """Look at a packet that came; `at` is the kernel's wall time."""

    def run(self, seconds: float) -> None:
        host, port = self.socket.getsockname()
        print(json.dumps({"host": host, "port": port}), flush=True)
        start = time.monotonic()
        self.reset()
        served, text = 0, b""
        while (now := time.monotonic()) < start + seconds:
            slot = int((now - start) / FRAME_S * SLOTS)
            # After a stall, what was missed for longer than a round is not sent at once.
            served = max(served, slot - SLOTS)
            while served < slot:
                served += 1
                self.send_slot(served)
            self.receive()
            if served % 10 == 0 and select.select([0], [], [], 0)[0]:
                received = os.read(0, 65536)
                if not received:
                    return
                *lines, text = (text + received).split(b"\n")
                for line in lines:
                    if (answer := self.obey(json.loads(line))) is not None:
                        print(json.dumps(answer), flush=True)
            time.sleep(max(0.0002, start + (served + 1) * FRAME_S / SLOTS - time.monotonic()))


class RtpPeer:
    """A peer process, from asyncio."""

    program = __file__

    def __init__(self, process: asyncio.subprocess.Process, host: str, port: int) -> None:
        self._process = process
        self.host = host
        self.port = port

    @classmethod
    async def start(cls, seconds: float, host: str = "127.0.0.1") -> RtpPeer:
        """Start one that ends by itself after some seconds. Its address is `host`, `port`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            cls.program,
            "--host",
            host,
            "--seconds",
            str(seconds),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
        )
        assert process.stdout is not None
        first = json.loads(await process.stdout.readline())
        return cls(process, first["host"], first["port"])

    def add(self, host: str, port: int) -> None:
        """Send to this address, and measure what comes from it."""
        self._write({"add": [host, port]})

    def remove(self, host: str, port: int) -> None:
        self._write({"remove": [host, port]})

    def reset(self) -> None:
        """Forget what was measured."""
        self._write({"reset": True})

    async def report(self) -> dict[str, Any]:
        """Return the figures since the last reset."""
        self._write({"report": True})
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return answer

    async def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    def _write(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")


def main(peer: type[Peer] = Peer) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--seconds", type=float, default=60.0, help="end after this long")
    arguments = parser.parse_args()
    peer(arguments.host).run(arguments.seconds)


if __name__ == "__main__":
    main()
