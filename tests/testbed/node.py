"""`offhook serve` in a process of its own, with a configuration made for the test."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from .waiting import PATIENCE_S

__all__ = ["Node", "Seat"]

LISTEN = ("udp:127.0.0.1:0", "tcp:127.0.0.1:0", "tls:127.0.0.1:0")
_START_S = 90
_STOP_S = 60

EVENTS = (
    "realtime.call.incoming",
    "realtime.call.answered",
    "realtime.call.ended",
    "realtime.call.refer.updated",
)


@dataclass
class Seat:
    """
    One project of the node and the address of its app, which nobody listens on until an app takes the seat.

    The socket is bound from the start, so the address stays ours; connections are refused until it listens.
    """

    project: str
    api_key: str
    secret: str
    socket: socket.socket = field(repr=False)
    events: tuple[str, ...]
    taken: bool = False

    @classmethod
    def reserve(cls, number: int, events: tuple[str, ...]) -> Seat:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        bound.bind(("127.0.0.1", 0))
        secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
        return cls(f"proj_{number}", f"sk-test-{number}", secret, bound, events)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}/webhook"


class Node:
    """
    A running node. Use as a context manager; leaving it sends SIGTERM and waits.

    `base_url` is what an SDK's `base_url` is set to; `sip` gives host and port by transport. `engine` is what the
    configuration's table of that name says, `sip`, `calls` and `server` what those say besides, and `seat_lines` what
    the projects of some seats say besides, by their numbers. `trunk` is the trunk of each project, `tls` the
    certificate and its key. An address of IPv6 is under its transport's name and a 6: `udp6`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        script: Any = None,
        seats: int = 1,
        ring_timeout_s: float = 4.0,
        events: Sequence[str] = EVENTS,
        unsubscribed_seats: int = 0,
        engine: str = 'kind = "scripted"',
        log_level: str = "INFO",
        sip: str = "",
        calls: str = "",
        seat_lines: Mapping[int, str] | None = None,
        tls_hostname: str = "",
        grace_s: float = 1,
        listen: Sequence[str] = LISTEN,
        media_bind: str = "127.0.0.1",
        trunk: str = 'name = "loopback"\nsources = ["127.0.0.0/8", "::1/128"]',
        tls: tuple[Path, Path] | None = None,
        server: str = "",
    ) -> None:
        self.folder = folder
        self._server = server
        self._calls = calls
        self._seat_lines = seat_lines or {}
        self._log_level = log_level
        self._tls_hostname = tls_hostname
        self._engine = engine
        self._sip = sip
        self._grace_s = grace_s
        self._listen = listen
        self._media_bind = media_bind
        self._trunk = trunk
        self._tls = tls
        self.seats = [Seat.reserve(number, tuple(events)) for number in range(seats)]
        self.unsubscribed = [
            Seat.reserve(seats + number, ("realtime.call.ended",)) for number in range(unsubscribed_seats)
        ]
        self.base_url = self.https_base_url = ""
        self.sip: dict[str, tuple[str, int]] = {}
        # Ports for media come from a range of this process's own, below those that the system gives out.
        first = 10_000 + os.getpid() % 22 * 1_000
        self.media_ports = (first, first + 798)
        self.phone_ports = (first + 800, first + 998)
        self.log_path = folder / "offhook.log"
        self.data_dir = folder / "data"
        self.config = self._write_config(script, ring_timeout_s)
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._excused: set[str] = set()

    @property
    def ca(self) -> Path:
        """The development CA that the node made."""
        found = sorted(self.data_dir.rglob("ca.pem"))
        assert found, f"no ca.pem under {self.data_dir}"
        return found[0]

    def seat(self) -> Seat:
        """Return a project that no test has used yet."""
        seat = next((seat for seat in self.seats if not seat.taken), None)
        assert seat is not None, "all seats are taken: give Node more of them"
        seat.taken = True
        return seat

    def __enter__(self) -> Node:
        out = (self.folder / "stdout").open("wb")
        command = [sys.executable, "-m", "offhook", "serve", "--config", str(self.config)]
        self._process = subprocess.Popen(
            [*command, "--log-file", str(self.log_path), "--log-level", self._log_level],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        out.close()
        try:
            self._wait_until_ready()
        except BaseException:
            self._kill()
            self._close_seats()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._killed:
            self._close_seats()
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._kill()
            raise AssertionError(f"the node did not stop within {_STOP_S} s of SIGTERM") from None
        finally:
            self._close_seats()
        assert code == 0, f"the node ended with {code}: {self._tail()}"
        assert not (faults := self.faults()), "the node logged faults of its own:\n" + "\n".join(faults)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def processor_s(self) -> float:
        """Return how much processor time it has had."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def ended(self, timeout: float) -> int:
        """Wait for its end, and return the exit code."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, timeout)

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines of an event so far. A thread writes it: what was just answered may not be told yet."""
        entries = [json.loads(line) for line in self.log_path.read_text().splitlines()]
        return [entry for entry in entries if entry.get("event") == event]

    async def logged(self, event: str, timeout: float = PATIENCE_S, *, count: int = 1) -> dict[str, Any]:
        """Wait for the log's `count`-th line of an event, and return it."""
        async with asyncio.timeout(timeout):
            while len(found := self.log(event)) < count:
                await asyncio.sleep(0.02)
        return found[count - 1]

    def kill(self) -> None:
        """End it as a crash does; it is not asked how it ended."""
        self._killed = True
        self._kill()

    def start_again(self) -> None:
        """Start it after `kill`, on addresses of its own choice."""
        assert self._killed
        self._killed = False
        self.__enter__()

    def _close_seats(self) -> None:
        for seat in (*self.seats, *self.unsubscribed):
            seat.socket.close()

    def excuse(self, event: str) -> None:
        """Take log lines of this event for no fault: the test has provoked it."""
        self._excused.add(event)

    def faults(self) -> list[str]:
        """Return log lines that tell of a fault in the node itself."""
        return [
            line
            for line in self.log_path.read_text().splitlines()
            if (json.loads(line)["level"] in ("error", "critical") or '"exception"' in line)
            and json.loads(line).get("event") not in self._excused
        ]

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            for line in (self.folder / "stdout").read_text().splitlines():
                if line.startswith("offhook ready "):
                    self._read_addresses(line.split()[2:])
                    return
            if self._process.poll() is not None:
                raise AssertionError(f"the node ended with {self._process.returncode}: {self._tail()}")
            time.sleep(0.02)
        raise AssertionError(f"the node was not ready within {_START_S} s: {self._tail()}")

    def _read_addresses(self, addresses: list[str]) -> None:
        for address in addresses:
            if address.startswith("http://"):
                self.base_url = f"{address}/v1"
            elif address.startswith("https://"):
                self.https_base_url = f"{address}/v1"
            else:
                transport, _, rest = address.partition(":")
                host, _, port = rest.rpartition(":")
                self.sip[f"{transport}6" if host.startswith("[") else transport] = (
                    host.strip("[]"),
                    int(port),
                )

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _tail(self) -> str:
        text = (self.folder / "stdout").read_text()
        if self.log_path.exists():
            text += self.log_path.read_text()
        return text[-3000:]

    def _write_config(self, script: Any, ring_timeout_s: float) -> Path:
        lines = list(self._tables(script, ring_timeout_s))
        path = self.folder / "offhook.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def _tables(self, script: Any, ring_timeout_s: float) -> Iterator[str]:
        # Every port is one that the system gives; the line that says `offhook ready` names them.
        yield '[server]\nhttp = "127.0.0.1:0"\nhttps = "127.0.0.1:0"'
        yield f"data_dir = {json.dumps(str(self.data_dir))}"
        yield f"shutdown_grace_s = {self._grace_s}\n{self._server}"
        if self._tls is not None:
            yield f"[tls]\ncert = {json.dumps(str(self._tls[0]))}\nkey = {json.dumps(str(self._tls[1]))}"
        yield f"[sip]\nlisten = {json.dumps(list(self._listen))}"
        yield self._sip
        yield f'[media]\nbind = "{self._media_bind}"\nports = "{self.media_ports[0]}-{self.media_ports[1]}"'
        yield f"[calls]\nring_timeout_s = {ring_timeout_s}\n{self._calls}"
        yield f"[engine]\n{self._engine}"
        if script is not None:
            path = self.folder / "script.json"
            path.write_text(json.dumps(script))
            yield f"script = {json.dumps(str(path))}"
        for number, seat in enumerate((*self.seats, *self.unsubscribed)):
            yield f'[[projects]]\nid = "{seat.project}"\napi_keys = ["{seat.api_key}"]'
            yield self._seat_lines.get(number, "")
            yield f"[[projects.trunks]]\n{self._trunk}"
            if self._tls_hostname:
                yield f'tls_hostname = "{self._tls_hostname}"'
            yield f'[[projects.webhooks]]\nurl = "{seat.url}"\nsecret = "{seat.secret}"'
            yield f"events = {json.dumps(list(seat.events))}"

    async def describe(self, seat: Seat, call_id: str) -> dict[str, Any]:
        """Return `GET /v1/realtime/calls/{id}`."""
        return await self.get(seat, f"/realtime/calls/{call_id}")

    async def timeline(self, seat: Seat, call_id: str) -> list[dict[str, Any]]:
        """Return the entries of the call's timeline."""
        body = await self.get(seat, f"/realtime/calls/{call_id}/timeline")
        entries: list[dict[str, Any]] = body["data"]
        return entries

    async def get(self, seat: Seat, path: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {seat.api_key}"}
        async with httpx2.AsyncClient(timeout=15, headers=headers) as client:
            response = await client.get(self.base_url + path)
        assert response.status_code == 200, f"GET {path}: {response.status_code} {response.text}"
        body: dict[str, Any] = response.json()
        return body
