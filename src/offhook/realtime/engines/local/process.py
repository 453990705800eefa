"""One worker process, seen from the event loop; and what keeps a number of them alive."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from offhook import precedence

from ...engine import EngineUnavailable
from . import wire

__all__ = ["Role", "Supervisor", "WorkerProcess"]

log = logging.getLogger("offhook.realtime")

_BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 5.0)
"Waits before a lost worker is replaced, by how many were lost in a row without becoming ready. The last one repeats."

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)


@dataclass(frozen=True, slots=True)
class Role:
    """What a worker is for."""

    name: Literal["vad", "stt", "tts"]
    nice: int
    "How far below the event loop it runs."
    options: Mapping[str, Any] = field(default_factory=dict)


class WorkerProcess(asyncio.Protocol):
    """
    One process from its start to its end.

    It is a fresh interpreter, not a fork: threads, sockets and locks of the node do not leak into it. It has a session
    of its own, so Ctrl-C does not reach it, and it ends by itself when its socket closes, which is also what happens
    when the node dies.
    """

    def __init__(
        self,
        role: Role,
        on_message: Callable[[WorkerProcess, wire.Message], None],
        on_lost: Callable[[WorkerProcess], None],
    ) -> None:
        self.role = role
        self.ready = False
        self.load: dict[str, Any] = {}
        "What the worker said of itself when it was ready: `load_ms`, `rss_mb`."
        self.failure: str | None = None
        "Why it could not load, in its own words."
        self._on_message = on_message
        self._on_lost = on_lost
        self._decoder = wire.Decoder()
        self._transport: asyncio.Transport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._over = asyncio.Event()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start the process; `on_message` gets its `ready` or `failed` later."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        options = json.dumps({**self.role.options, "nice": precedence.usual() + self.role.nice})
        command = [
            sys.executable,
            "-m",
            f"{__package__}.child",
            self.role.name,
            str(theirs.fileno()),
            options,
        ]
        try:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own module; returns once exec has succeeded
                command,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
                process_group=0,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)

    def send(self, header: Mapping[str, Any], body: bytes = b"") -> None:
        """Hand over a message. Never blocks; what does not fit in the socket waits in memory."""
        if self._transport is not None:
            self._transport.write(wire.encode(header, body))

    def kill(self) -> None:
        """End the process at once, whatever it is doing."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    async def close(self, timeout: float = 2.0) -> None:
        """End the process; wait until it is gone."""
        if self._transport is not None:
            self._transport.abort()
        await self._reap(timeout)

    async def _reap(self, timeout: float) -> None:
        process = self._process
        if process is None:
            return
        try:
            await asyncio.to_thread(process.wait, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's, so nothing can be asserted here.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for message in self._decoder.receive_data(data):
            match message.header["type"]:
                case "ready":
                    self.ready = True
                    self.load = message.header
                case "failed":
                    self.failure = message.header["message"]
            self._on_message(self, message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.ready = False
        self._on_lost(self)


class Supervisor:
    """
    Keeps `size` workers of a role alive.

    A worker that dies is replaced: at once the first time, then with growing waits while replacements die before
    they are ready. Subscribers are told by callbacks, on the loop.
    """

    def __init__(
        self,
        role: Role,
        size: int,
        *,
        on_ready: Callable[[WorkerProcess], None],
        on_message: Callable[[WorkerProcess, wire.Message], None],
        on_lost: Callable[[WorkerProcess], None],
        on_none_left: Callable[[str], None],
    ) -> None:
        self.role = role
        self.size = size
        self.workers: set[WorkerProcess] = set()
        self.replaced = 0
        "How many workers have died and been replaced."
        self._on_ready = on_ready
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_none_left = on_none_left
        self._failures = 0
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._first: asyncio.Future[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether at least one worker is ready."""
        return any(worker.ready for worker in self.workers)

    async def start(self, timeout: float) -> None:
        """Start all workers and wait until each is ready. Raises `EngineUnavailable` with the reason."""
        self._first = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                for _ in range(self.size):
                    await self._spawn()
                await self._first
        except TimeoutError:
            await self.close()
            raise EngineUnavailable(
                f"the {self.role.name} worker was not ready within {timeout:.0f} s; is the machine overloaded?"
            ) from None
        except OSError as exc:
            await self.close()
            raise EngineUnavailable(f"the {self.role.name} worker could not be started: {exc}") from exc
        except EngineUnavailable:
            await self.close()
            raise

    async def close(self) -> None:
        """End all workers."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in list(self.workers)))
        self.workers.clear()

    def describe(self) -> dict[str, object]:
        ready = [worker for worker in self.workers if worker.ready]
        return {
            "workers": len(ready),
            "replaced": self.replaced,
            "load_ms": max((worker.load.get("load_ms", 0) for worker in ready), default=0),
            "rss_mb": sum(worker.load.get("rss_mb", 0) for worker in ready),
        }

    async def _spawn(self) -> None:
        worker = WorkerProcess(self.role, self._message, self._lost)
        await worker.start()
        self.workers.add(worker)

    def _message(self, worker: WorkerProcess, message: wire.Message) -> None:
        match message.header["type"]:
            case "ready":
                self._failures = 0
                log.info(
                    "%s worker ready",
                    self.role.name,
                    extra={"event": "engine.worker.ready", "pid": worker.pid, **worker.load},
                )
                if self._first and not self._first.done() and sum(w.ready for w in self.workers) == self.size:
                    self._first.set_result(None)
                self._on_ready(worker)
            case "failed":
                log.error(
                    "%s worker cannot start: %s",
                    self.role.name,
                    worker.failure,
                    extra={"event": "engine.worker.failed", "pid": worker.pid},
                )
                if self._first and not self._first.done():
                    self._first.set_exception(EngineUnavailable(worker.failure or "unknown"))
            case _:
                self._on_message(worker, message)

    def _lost(self, worker: WorkerProcess) -> None:
        self.workers.discard(worker)
        if self._closing:
            return
        self.replaced += 1
        self._run(self._replace(worker))
        self._on_lost(worker)
        if not self.workers and self._failures >= 2:
            self._on_none_left(f"no {self.role.name} worker can be kept alive: {worker.failure or 'it died'}")

    async def _replace(self, lost: WorkerProcess) -> None:
        wait = _BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)]
        self._failures += 1
        log.error(
            "%s worker %d died; starting another in %.1f s",
            self.role.name,
            lost.pid,
            wait,
            extra={"event": "engine.worker.died", "pid": lost.pid},
        )
        await lost.close()
        await asyncio.sleep(wait)
        try:
            await self._spawn()
        except OSError as exc:
            log.error(
                "%s worker could not be started: %s",
                self.role.name,
                exc,
                extra={"event": "engine.worker.failed"},
            )
            self._run(self._replace(lost))

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
