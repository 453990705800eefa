"""
Kamailio as a carrier's edge: a telephone on UDP, Offhook on TLS, two Record-Routes between them.

Run by `make interop`. What is looked at: a re-INVITE of the caller's, a REFER and both sides' BYE, all through the
edge; a REFER after the edge has closed its quiet connection, which dials the edge and checks its certificate against
the trunk's `tls_hostname`; and, in a network namespace where nobody can connect to the edge, a REFER that goes by
the INVITE's own connection, and one that cannot be sent and says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from offhook.certificates import development_certificate  # noqa: E402
from testbed import DeveloperApp, Node, Phone, PhoneCall  # noqa: E402
from testbed.script import SCRIPT  # noqa: E402

EDGE_NAME = "edge.example.net"
TARGET = "tel:+14155550123"
QUIET_S = 3
"What a Kamailio that is in a hurry lets a connection be quiet for."

Row = tuple[str, bool, str]


class Edge:
    """A running Kamailio. Use as a context manager."""

    def __init__(self, folder: Path, node: Node, *, lifetime_s: int) -> None:
        folder.mkdir()
        self.udp, self.tls = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
        self._folder = folder
        # Of the CA that the node trusts, for a name alone: no address, as on carriers' certificates.
        for name in ("ca.pem", "ca.key"):
            shutil.copy(node.data_dir / "tls" / name, folder)
        files = development_certificate(folder, (EDGE_NAME,))
        (folder / "tls.cfg").write_text(
            "[server:default]\nmethod = TLSv1.2+\nverify_certificate = no\nrequire_certificate = no\n"
            f"private_key = {files.key}\ncertificate = {files.cert}\n"
            "[client:default]\nmethod = TLSv1.2+\nverify_certificate = yes\nrequire_certificate = yes\n"
            f"ca_list = {node.ca}\n"
        )
        text = (HERE / "kamailio.cfg").read_text()
        values = {
            "LIFETIME": lifetime_s, "UDP": self.udp, "TLS": self.tls, "FOLDER": folder,
            "OFFHOOK": node.sip["tls"][1],
        }  # fmt: skip
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        (folder / "kamailio.cfg").write_text(text)

    def __enter__(self) -> Edge:
        log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            ["kamailio", "-DD", "-E", "-m", "32", "-M", "4", "-f", str(self._folder / "kamailio.cfg"),
             "-Y", str(self._folder), "-P", str(self._folder / "pid")],
            stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            # UDP, since TCP may be behind a firewall: any request is answered.
            if answers_options(self.udp):
                return self
        raise SystemExit(f"kamailio did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(15)


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers_options(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.2)
        probe.connect(("127.0.0.1", port))
        me = "{}:{}".format(*probe.getsockname())
        lines = [
            f"OPTIONS sip:127.0.0.1:{port} SIP/2.0",
            f"Via: SIP/2.0/UDP {me};branch=z9hG4bKprobe{time.monotonic_ns()}",
            f"From: <sip:probe@{me}>;tag=p", f"To: <sip:127.0.0.1:{port}>;tag=nobody",
            f"Call-ID: {time.monotonic_ns()}",
            "CSeq: 1 OPTIONS", "Max-Forwards: 5", "Content-Length: 0", "", "",
        ]  # fmt: skip
        try:
            probe.send("\r\n".join(lines).encode())
            return probe.recv(2000).startswith(b"SIP/2.0 ")
        except OSError:
            return False


class Test:
    """One node, its app and one edge; `rows` is what was seen."""

    def __init__(self, node: Node, app: DeveloperApp, edge: Edge, case: str) -> None:
        self.node, self.app, self.edge, self.case = node, app, edge, case
        self.rows: list[Row] = []

    def see(self, what: str, holds: bool, shown: object = "") -> None:
        self.rows.append((f"{self.case}: {what}", bool(holds), str(shown)))

    @contextlib.asynccontextmanager
    async def call(self) -> AsyncIterator[tuple[PhoneCall, str]]:
        """An answered call of a telephone whose outbound proxy is the edge."""
        behind = copy.copy(self.node)
        behind.sip = {"udp": ("127.0.0.1", self.edge.udp)}
        async with Phone(behind) as phone:
            call = await phone.dial(self.app.seat.project)
            call_id = (await self.app.incoming()).call_id
            await self.app.accept(call_id)
            await call.answered()
            yield call, call_id

    async def refer(self, call_id: str) -> tuple[int, dict[str, Any]]:
        async with httpx2.AsyncClient(timeout=12) as client:
            response = await client.post(
                f"{self.node.base_url}/realtime/calls/{call_id}/refer",
                headers={"Authorization": f"Bearer {self.app.seat.api_key}"},
                json={"target_uri": TARGET},
            )
        return response.status_code, response.json() if response.content else {}

    async def decisions(self, call_id: str, method: str) -> list[str]:
        entries = await self.node.timeline(self.app.seat, call_id)
        return [e["title"] for e in entries if e["kind"] == "route" and e.get("method") == method]

    async def message(self, call_id: str, start: str) -> str:
        """Return the last message of the call's timeline that begins so."""
        entries = await self.node.timeline(self.app.seat, call_id)
        return next(
            (e["message"] for e in reversed(entries) if e["kind"] == "sip" and e["title"].startswith(start)),
            "",
        )

    async def wait_quiet(self, call_id: str) -> None:
        """Wait until the node's connections to the edge are gone."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = subprocess.run(
                ["ss", "-Htn", "state", "established", f"( sport = :{self.node.sip['tls'][1]} )"],
                check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
            if not found.strip():
                return
            await asyncio.sleep(0.1)
        raise SystemExit("kamailio kept its quiet connection")


async def whole_call(test: Test) -> None:
    """Re-INVITE, REFER with its NOTIFYs, and the BYE that follows; then a call that the app hangs up."""
    async with test.call() as (call, call_id):
        routes = [
            line for line in (await test.message(call_id, "INVITE ")).splitlines() if "Record-Route" in line
        ]
        test.see(
            "the edge recorded itself twice", len(routes) == 2 and all("r2=on" in r for r in routes), routes
        )
        again = await call.leg.request("INVITE", body=call.offer, content_type="application/sdp")
        test.see("re-INVITE of the caller's is answered", again.status == 200, again.status)
        status, _ = await test.refer(call_id)
        test.see("REFER is taken", status == 200, status)
        decisions = await test.decisions(call_id, "REFER")
        test.see(
            "by the INVITE's connection",
            decisions and "by the INVITE's connection" in decisions[0],
            decisions,
        )
        sent = [line.removeprefix("Route: ") for line in (await test.message(call_id, "REFER ")).splitlines()
                if line.startswith("Route: ")]  # fmt: skip
        received = [line.partition(": ")[2] for line in routes]
        test.see("its Routes are the Record-Routes, byte for byte", sent == received, sent)
        update = await test.app.next("realtime.call.ended")
        test.see(
            "NOTIFYs came back, then our BYE",
            update.event.data.reason == "transferred",
            update.event.data.reason,
        )
        ended = await call.ended()
        test.see("the BYE reached the caller", ended.cause == "remote_bye", ended.cause)
    async with test.call() as (call, call_id):
        await test.app.client.realtime.calls.hangup(call_id)
        test.see("hangup's BYE reached the caller", (await call.ended()).cause == "remote_bye")
    async with test.call() as (call, call_id):
        call.hang_up()
        ended = await test.app.next("realtime.call.ended")
        test.see(
            "the caller's BYE reached us", ended.event.data.reason == "remote_hangup", ended.event.data.reason
        )


async def after_silence(test: Test) -> None:
    """The edge has closed its connection; the REFER dials it and checks the trunk's name."""
    async with test.call() as (call, call_id):
        await test.wait_quiet(call_id)
        status, body = await test.refer(call_id)
        test.see("REFER after the edge closed the connection", status == 200, body or status)
        decisions = await test.decisions(call_id, "REFER")
        expected = (
            f"sent REFER to tls 127.0.0.1:{test.edge.tls} from Record-Route; the INVITE's connection is gone"
        )
        test.see("dialled by the Record-Route", expected in decisions, decisions)
        test.see("the caller got it", len(call.refers) == 1, len(call.refers))
        test.see("BYE by the new way", (await call.ended()).cause == "remote_bye")


async def wrong_name(test: Test) -> None:
    """The edge's certificate does not show the trunk's name: nothing is sent to it."""
    async with test.call() as (call, call_id):
        await test.wait_quiet(call_id)
        status, body = await test.refer(call_id)
        details = body.get("error", {}).get("details", {})
        test.see("REFER to an edge with another name is not sent", status == 502, details.get("error"))
        test.see("and the call goes on", call.alive and not call.refers)


async def behind_firewall(test: Test) -> None:
    """Nobody can connect to the edge: only the INVITE's connection works."""
    async with test.call() as (call, call_id):
        status, body = await test.refer(call_id)
        test.see("REFER is taken", status == 200, body or status)
        decisions = await test.decisions(call_id, "REFER")
        test.see(
            "by the INVITE's connection",
            decisions and "by the INVITE's connection" in decisions[0],
            decisions,
        )
        test.see("the BYE reached the caller", (await call.ended()).cause == "remote_bye")


async def behind_firewall_and_quiet(test: Test) -> None:
    """The connection is gone as well: the API names hop, transport and errno, within its time."""
    async with test.call() as (call, call_id):
        await test.wait_quiet(call_id)
        began = time.monotonic()
        status, body = await test.refer(call_id)
        took = time.monotonic() - began
        details = body.get("error", {}).get("details", {})
        test.see("REFER is a 502 within 4 s", status == 502 and took < 4, f"{status} after {took:.1f} s")
        shown = [details.get(key) for key in ("transport", "hop", "error", "errno")]
        expected = ["tls", f"127.0.0.1:{test.edge.tls} from Record-Route", "connect timed out after 3 s", 110]
        test.see("which names transport, hop and errno", shown == expected, shown)
        test.see("and the call goes on", call.alive)


CASES = {
    "edge": (
        (whole_call, 120, EDGE_NAME),
        (after_silence, QUIET_S, EDGE_NAME),
        (wrong_name, QUIET_S, "other.example.net"),
    ),
    "firewall": ((behind_firewall, 120, EDGE_NAME), (behind_firewall_and_quiet, QUIET_S, EDGE_NAME)),
}


async def run_case(name: str, folder: Path) -> list[Row]:
    rows: list[Row] = []
    for steps, lifetime_s, tls_hostname in CASES[name]:
        place = folder / f"{name}-{steps.__name__}"
        place.mkdir()
        with (
            Node(place, script=SCRIPT, tls_hostname=tls_hostname) as node,
            Edge(place / "edge", node, lifetime_s=lifetime_s) as edge,
            closed_to_all(edge) if name == "firewall" else contextlib.nullcontext(),
        ):
            async with DeveloperApp(node) as app:
                test = Test(node, app, edge, steps.__name__.replace("_", " "))
                try:
                    await steps(test)
                except (AssertionError, TimeoutError) as error:
                    test.see("went through", False, error)
                rows += test.rows
    return rows


@contextlib.contextmanager
def closed_to_all(edge: Edge) -> Iterator[None]:
    """Drop every attempt to connect to the edge's TLS port; what is connected stays so."""
    rule = ["INPUT", "-p", "tcp", "--dport", str(edge.tls), "--syn", "-j", "DROP"]
    subprocess.run(["iptables", "-A", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["iptables", "-D", *rule], check=True)


def run_in_namespace(folder: Path) -> bool:
    """Run the case with the firewall where it touches nothing else."""
    space = f"oh-kamailio-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", space], check=True)
    try:
        subprocess.run(["ip", "-n", space, "link", "set", "lo", "up"], check=True)
        command = ["ip", "netns", "exec", space, sys.executable, __file__, "firewall", str(folder)]
        return subprocess.run(command, timeout=120, check=False).returncode == 0
    finally:
        subprocess.run(["ip", "netns", "del", space], check=True)


def report(rows: list[Row]) -> bool:
    for what, holds, shown in rows:
        print(
            f"{'ok  ' if holds else 'FAIL'} {what}" + (f"   [{shown}]" if shown else ""),
            flush=True,
        )
    return bool(rows) and all(holds for _, holds, _ in rows)


def main() -> None:
    needed = {"kamailio": "kamailio and kamailio-tls-modules", "ip": "iproute2", "ss": "iproute2"}
    for tool, package in (needed | {"iptables": "iptables"}).items():
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is missing: install Debian's {package}")
    if len(sys.argv) == 3:
        raise SystemExit(0 if report(asyncio.run(run_case(sys.argv[1], Path(sys.argv[2])))) else 1)
    folder = Path(tempfile.mkdtemp(prefix="offhook-kamailio-"))
    good = report(asyncio.run(run_case("edge", folder)))
    if not (run_in_namespace(folder) and good):
        raise SystemExit(f"kamailio: see {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
