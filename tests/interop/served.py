"""`offhook serve` as the scripts here run it: in a process of its own, until they are done with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

__all__ = ["Served", "serving"]

READY_S = 120
END_S = 30


class Served:
    """A running node. `http` is its URL, `sip` its UDP port; `ended` is its exit status once it has ended."""

    def __init__(self, process: asyncio.subprocess.Process, ready_line: str) -> None:
        self._process = process
        self.http = re.search(r"http://\S+", ready_line)[0]
        self.sip = int(re.search(r"udp:\S+:(\d+)", ready_line)[1])

    @property
    def ended(self) -> int | None:
        return self._process.returncode

    @property
    def rss_mb(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


@contextlib.asynccontextmanager
async def serving(
    folder: Path, config: str, *, name: str = "offhook", before: Sequence[str] = ()
) -> AsyncIterator[Served]:
    """
    Run a node with this configuration until the block is left, then end it with SIGTERM.

    Its log is `NAME.log` in the folder, its data `data`. `before` is what the command begins with, such as `taskset`.
    """
    path, log_path = folder / f"{name}.toml", folder / f"{name}.log"
    path.write_text(config)
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *before,
            *(sys.executable, "-m", "offhook", "serve", "--config", str(path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=os.environ | {"OFFHOOK_SERVER__DATA_DIR": str(folder / "data")},
        )
        try:
            async with asyncio.timeout(READY_S):
                while not (line := (await process.stdout.readline()).decode()).startswith("offhook ready"):
                    if not line:
                        raise SystemExit(f"offhook serve ended: {log_path.read_text()[-2000:]}")
            yield Served(process, line)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), END_S)
