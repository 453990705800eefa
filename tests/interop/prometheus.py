"""
A real Prometheus scrapes `offhook serve` and loads what contrib/ has for it.

Run by `make interop`; needs Debian's `prometheus`, which brings `promtool`. It judges the names and the format of
`/metrics`, loads and evaluates the alert rules, and answers every query of the Grafana dashboard. A call is made first,
and strangers with methods, statuses, projects and paths of their own must add no series.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx2

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from testbed import DeveloperApp, Node, Phone  # noqa: E402
from testbed.script import SCRIPT  # noqa: E402

CONTRIB = HERE.parents[1] / "contrib"
STRANGERS = 300
MAX_SERIES = 500
LIMIT_S = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def place_a_call(node: Node) -> None:
    async with DeveloperApp(node) as app, Phone(node) as phone:
        call = await phone.dial(app.seat.project)
        await app.accept((await app.incoming()).call_id)
        await call.answered()
        await call.hears_silence(200)
        call.hang_up()
        await app.next("realtime.call.ended")


async def send_what_strangers_send(node: Node) -> None:
    """SIP and HTTP with a word of its own in every place that a label might be made of."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        rest = (
            "Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{n}\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag={n}\r\n"
            "To: <sip:b@c>\r\nCall-ID: {n}@x\r\nCSeq: 1 {method}\r\nContact: <sip:a@127.0.0.1>\r\n"
            "Content-Length: 0\r\n\r\n"
        )
        for number in range(STRANGERS):
            for first, method in (
                (f"M{number} sip:x@h SIP/2.0", f"M{number}"),
                (f"SIP/2.0 {100 + number} odd", f"M{number}"),
                (f"INVITE sip:proj_stranger{number}@127.0.0.1 SIP/2.0", "INVITE"),
            ):
                text = rest.format(port=sock.getsockname()[1], n=f"{number}{method}", method=method)
                sock.sendto(f"{first}\r\n{text}".encode(), node.sip["udp"])
    async with httpx2.AsyncClient(timeout=LIMIT_S) as client:
        base = node.base_url.removesuffix("/v1")
        for number in range(STRANGERS):
            for path in (
                f"/s{number}",
                f"/static/s{number}",
                f"/calls/s{number}",
                f"/v1/realtime/calls/s{number}",
                f"/openai/deployments/s{number}/realtime",
            ):
                await client.request("GET" if number % 2 else f"M{number}", base + path)


def _expressions(where: Any) -> Iterator[str]:
    if isinstance(where, dict):
        if "expr" in where:
            yield where["expr"]
        where = list(where.values())
    if isinstance(where, list):
        for each in where:
            yield from _expressions(each)


@asynccontextmanager
async def prometheus(folder: Path, node: Node) -> AsyncIterator[httpx2.AsyncClient]:
    """Prometheus with the rules of contrib/, scraping the node every second; its own API."""
    config, port = folder / "prometheus.yml", free_port()
    config.write_text(
        f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ['{CONTRIB}/prometheus/*.yaml']
scrape_configs:
  - job_name: offhook
    static_configs: [{{targets: ['{node.base_url.split("/")[2]}']}}]
"""
    )
    options = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *options], stderr=log)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=LIMIT_S) as client:
            yield client
    finally:
        process.terminate()
        process.wait(LIMIT_S)


async def ask(client: httpx2.AsyncClient, path: str, **params: str) -> Any:
    answer = (await client.get(path, params=params)).json()
    assert answer["status"] == "success", f"{params}: {answer.get('error')}"
    return answer["data"]


async def until_scraped(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(LIMIT_S):
        while True:
            await asyncio.sleep(0.3)
            try:
                targets = (await ask(client, "/targets"))["activeTargets"]
                rules = [rule for group in (await ask(client, "/rules"))["groups"] for rule in group["rules"]]
            except httpx2.TransportError:
                continue  # it starts
            if targets and targets[0]["health"] != "unknown" and all(r["health"] != "unknown" for r in rules):
                assert targets[0]["health"] == "up", targets[0]["lastError"]
                return


def check(what: str, fault: str = "") -> None:
    print(f"{'FAILED' if fault else 'ok':7}{what}{': ' + fault if fault else ''}")
    if fault:
        raise SystemExit(1)


def promtool(*arguments: str, stdin: bytes = b"") -> str:
    """Return what it complains of."""
    ran = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, check=False)
    said = (ran.stdout if ran.returncode else b"") + ran.stderr
    return said.decode().strip()


async def main() -> None:
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: install Debian's prometheus")
    with tempfile.TemporaryDirectory(prefix="offhook-prometheus-") as name:
        folder = Path(name)
        with Node(folder, script=SCRIPT) as node:
            await place_a_call(node)
            await send_what_strangers_send(node)
            async with httpx2.AsyncClient(timeout=LIMIT_S) as client:
                shown = (await client.get(node.base_url.removesuffix("/v1") + "/metrics")).content
            series = sum(not line.startswith(b"#") for line in shown.splitlines())
            check("promtool check metrics", promtool("check", "metrics", stdin=shown))
            rules = sorted(map(str, CONTRIB.glob("prometheus/*.yaml")))
            check("promtool check rules", promtool("check", "rules", *rules))
            check(
                f"{series} series after {8 * STRANGERS} odd requests",
                "" if series <= MAX_SERIES else f"more than {MAX_SERIES}",
            )
            async with prometheus(folder, node) as client:
                await until_scraped(client)
                await check_queries(client)


async def check_queries(client: httpx2.AsyncClient) -> None:
    rules = [rule for group in (await ask(client, "/rules"))["groups"] for rule in group["rules"]]
    wrong = [f"{rule['name']} {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"]
    check(f"{len(rules)} alert rules evaluated", "; ".join(wrong))
    ended = (await ask(client, "/query", query="sum(offhook_calls_ended_total)"))["result"]
    check("the call is in Prometheus", "" if ended and float(ended[0]["value"][1]) >= 1 else str(ended))
    dashboard = json.loads((CONTRIB / "grafana" / "offhook.json").read_text())
    expressions = sorted(set(_expressions(dashboard)))
    for expression in expressions:
        query = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
        await ask(client, "/query", query=query)
    check(f"{len(expressions)} queries of the dashboard answered")


if __name__ == "__main__":
    asyncio.run(main())
