"""
The inside of a worker process: `python -m offhook.realtime.engines.local.child ROLE FD OPTIONS`.

One thread reads the socket, so that a cancel is seen in the midst of a job and the end of the node ends the worker
at once; the main thread does the work.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from . import wire

__all__ = ["Link", "Service", "main"]


class Service(Protocol):
    """What a worker does with messages. Loading is the constructor's work."""

    def handle(self, messages: list[wire.Message], link: Link) -> None:
        """Take one or more messages in the order they came."""


class Link:
    """The worker's end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._inbox: queue.SimpleQueue[wire.Message] = queue.SimpleQueue()
        self._cancelled: set[int] = set()

    def start(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, header: Mapping[str, Any], body: bytes = b"") -> None:
        try:
            self._sock.sendall(wire.encode(header, body))
        except OSError:
            os._exit(0)  # the node is gone

    def wait(self) -> list[wire.Message]:
        """Return everything that has come; at least one message."""
        messages = [self._inbox.get()]
        while True:
            try:
                messages.append(self._inbox.get_nowait())
            except queue.Empty:
                return messages

    def is_cancelled(self, job: int) -> bool:
        return job in self._cancelled

    def forget(self, job: int) -> None:
        self._cancelled.discard(job)

    def _read(self) -> None:
        decoder = wire.Decoder()
        while True:
            try:
                data = self._sock.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                os._exit(0)  # the node closed us, or died: a job under way is of no use to anyone
            for message in decoder.receive_data(data):
                if message.header["type"] == "cancel":
                    self._cancelled.add(message.header["job"])
                else:
                    self._inbox.put(message)


def load(role: str, options: Mapping[str, Any]) -> Service:
    """Load and warm one role's models. Imports are here: a worker pays only for what it uses."""
    match role:
        case "vad":
            from .vad import VadService

            return VadService()
        case "stt":
            from .stt import SttService

            return SttService(options["whisper_dir"])
        case "tts":
            from .tts import TtsService

            return TtsService(options.get("voice_model"))
        case _:
            raise ValueError(f"no such role: {role}")


def rss_mb() -> int:
    """Return the memory that this process holds now."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main(argv: list[str]) -> int:
    began = time.monotonic()
    role, fd, options = argv[0], int(argv[1]), json.loads(argv[2])
    # The node decides when a worker ends, by closing the socket. Signals that a terminal or an init system
    # sends to the whole group would otherwise cut calls that the node is still draining.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # As a value and not as a step: who started us may be the event loop's thread, which goes before all others.
    os.setpriority(os.PRIO_PROCESS, 0, min(options["nice"], 19))
    link = Link(socket.socket(fileno=fd))
    link.start()
    try:
        service = load(role, options)
    except Exception as exc:  # any reason at all is told to the node, which raises it as EngineUnavailable
        link.send({"type": "failed", "message": f"{role}: {exc}"})
        return 1
    link.send({"type": "ready", "load_ms": round((time.monotonic() - began) * 1000), "rss_mb": rss_mb()})
    while True:
        service.handle(link.wait(), link)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
