"""Jobs for worker processes: a queue by priority, one job at a time for each worker."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import wire
from .process import Role, Supervisor, WorkerProcess

__all__ = ["Job", "JobError", "JobPool"]


class JobError(Exception):
    """A job has no result; `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(eq=False, slots=True)
class Job:
    """
    Something for a worker to do.

    `on_message` gets each message about it, and then either a last one of type `done`, or `on_failed` is called.
    Nothing is called any more after `JobPool.cancel`.
    """

    header: dict[str, Any]
    body: bytes
    on_message: Callable[[wire.Message], None]
    on_failed: Callable[[JobError], None]
    priority: int = 0
    "Lower goes first; equal ones in the order they came."
    timeout_s: float = 20.0
    "Longer than this in a worker, and the worker is taken for stuck, ended and replaced."
    id: int = 0
    over: bool = False
    started: bool = False
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)


class JobPool:
    """A number of like workers with one queue."""

    def __init__(self, role: Role, size: int) -> None:
        self.supervisor = Supervisor(
            role,
            size,
            on_ready=self._ready,
            on_message=self._message,
            on_lost=self._lost,
            on_none_left=self._none_left,
        )
        self._queue: list[tuple[int, int, Job]] = []
        self._numbers = itertools.count(1)
        self._idle: deque[WorkerProcess] = deque()
        self._running: dict[WorkerProcess, Job] = {}
        self._closed = False

    @property
    def ready(self) -> bool:
        return self.supervisor.ready

    @property
    def waiting(self) -> int:
        """How many jobs no worker has taken yet."""
        return sum(not job.over for _, _, job in self._queue)

    async def start(self, timeout: float = 60.0) -> None:
        await self.supervisor.start(timeout)

    async def close(self) -> None:
        self._closed = True
        await self.supervisor.close()
        self._fail_all(JobError("engine_closed", "the engine is closing"))

    def submit(self, job: Job) -> Job:
        """Queue a job. Its callbacks run on the loop, never inside this call."""
        job.id = next(self._numbers)
        if self._closed:
            asyncio.get_running_loop().call_soon(
                self._fail, job, JobError("engine_closed", "the engine is closed")
            )
            return job
        heapq.heappush(self._queue, (job.priority, job.id, job))
        self._dispatch()
        return job

    def cancel(self, job: Job) -> None:
        """Forget a job. One that waits is never done; one under way is told to stop, and its messages are dropped."""
        if job.over:
            return
        job.over = True
        for worker, running in self._running.items():
            if running is job:
                worker.send({"type": "cancel", "job": job.id})

    async def messages(
        self, header: Mapping[str, Any], body: bytes = b"", *, priority: int = 0, timeout_s: float = 20.0
    ) -> AsyncGenerator[wire.Message, None]:
        """Run a job; yield its messages, `done` included. Leaving the iterator cancels it. Raises `JobError`."""
        inbox: asyncio.Queue[wire.Message | JobError] = asyncio.Queue()
        job = self.submit(
            Job(
                dict(header), body, inbox.put_nowait, inbox.put_nowait, priority=priority, timeout_s=timeout_s
            )
        )
        try:
            while True:
                got = await inbox.get()
                if isinstance(got, JobError):
                    raise got
                yield got
                if got.header["type"] == "done":
                    return
        finally:
            self.cancel(job)

    def _dispatch(self) -> None:
        while self._idle and self._queue:
            _, _, job = heapq.heappop(self._queue)
            if job.over:
                continue
            worker = self._idle.popleft()
            self._running[worker] = job
            job.started = True
            job.timer = asyncio.get_running_loop().call_later(job.timeout_s, self._stuck, worker, job)
            worker.send({**job.header, "job": job.id}, job.body)

    def _ready(self, worker: WorkerProcess) -> None:
        self._idle.append(worker)
        self._dispatch()

    def _message(self, worker: WorkerProcess, message: wire.Message) -> None:
        job = self._running.get(worker)
        if job is None or message.header.get("job") != job.id:
            return
        kind = message.header["type"]
        if kind in ("done", "error"):
            self._free(worker)
        if kind == "error":
            self._fail(job, JobError(message.header["code"], message.header["message"]))
        elif not job.over:
            job.over = kind == "done"
            job.on_message(message)
        self._dispatch()

    def _free(self, worker: WorkerProcess) -> Job | None:
        job = self._running.pop(worker, None)
        if job is not None:
            if job.timer is not None:
                job.timer.cancel()
            if worker.ready:
                self._idle.append(worker)
        return job

    def _lost(self, worker: WorkerProcess) -> None:
        job = self._free(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if job is not None:
            self._fail(
                job,
                JobError("engine_worker_died", f"the {worker.role.name} worker died while at work on this"),
            )

    def _stuck(self, worker: WorkerProcess, job: Job) -> None:
        self._fail(
            job,
            JobError(
                "engine_worker_stuck",
                f"the {worker.role.name} worker did not finish within {job.timeout_s:.0f} s",
            ),
        )
        worker.kill()

    def _none_left(self, reason: str) -> None:
        self._fail_all(JobError("engine_unavailable", reason))

    def _fail_all(self, failure: JobError) -> None:
        queue, self._queue = self._queue, []
        for _, _, job in queue:
            self._fail(job, failure)
        for worker in list(self._running):
            if (running := self._free(worker)) is not None:
                self._fail(running, failure)

    @staticmethod
    def _fail(job: Job, failure: JobError) -> None:
        if not job.over:
            job.over = True
            job.on_failed(failure)
