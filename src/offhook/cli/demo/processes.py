"""The demo's processes: each line they write is logged and handed on, and none outlives the demo."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["OnLine", "Process", "ended_after"]

OnLine = Callable[[str, float], None]
"""Called with a line and the time it was read, in seconds since 1970."""

_LINE_LIMIT = 1 << 20
_PATIENCE_S = 8.0


class Process:
    """A child process. `start` it, `stop` it; in between its lines are handed on."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode if self._process else None

    async def start(self, *, on_stdout: OnLine | None = None, on_stderr: OnLine | None = None) -> None:
        # A session of its own: Ctrl-C in the terminal reaches the demo alone, which then ends the others in order.
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(self._environment) if self._environment is not None else None,
            limit=_LINE_LIMIT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(self._process.stdout, on_stdout)),
            asyncio.create_task(self._read(self._process.stderr, on_stderr)),
        ]

    async def wait(self) -> int:
        """Return the exit status, once everything it wrote has been handed on."""
        assert self._process is not None
        await asyncio.wait(self._readers)  # unlike gather, giving up this wait ends no reader
        return await self._process.wait()

    def kill(self) -> None:
        """End it without a word, as a crash would. Safe to call at any time."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """End it: first politely, after some seconds not. Safe to call at any time."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _PATIENCE_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        # A grandchild that still holds the pipe must not hold us.
        await asyncio.wait(self._readers, timeout=1)
        for reader in self._readers:
            reader.cancel()

    def last_lines(self, count: int = 5) -> list[str]:
        """Return the end of its log."""
        try:
            return self.log.read_text(errors="replace").splitlines()[-count:]
        except OSError:
            return []

    async def _read(self, stream: asyncio.StreamReader, on_line: OnLine | None) -> None:
        with self.log.open("a") as log:
            while line := await stream.readline():
                text = line.decode("utf-8", "replace").rstrip("\n")
                print(text, file=log, flush=True)
                if on_line is not None:
                    on_line(text, time.time())


@asynccontextmanager
async def ended_after(*processes: Process, limit_s: float | None) -> AsyncIterator[None]:
    """
    Bound the time of what is done inside; end every process on the way out, whatever the way.

    SIGINT, SIGTERM and SIGHUP cancel it. Raises `TimeoutError`.
    """
    task = asyncio.current_task()
    assert task is not None

    def kill_all() -> None:
        for process in processes:
            process.kill()

    _on_signals(task.cancel)
    try:
        async with asyncio.timeout(limit_s):
            yield
    finally:
        # Who is told again while it clears up hurries, and leaves nothing behind either.
        _on_signals(kill_all)
        await asyncio.gather(*(process.stop() for process in processes))


def _on_signals(do: Callable[[], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, do)
