"""
SIPp calls `offhook serve`, and an app accepts: every call answered and ended, one webhook each.

Run by `make interop`. Three runs: 500 calls at 50/s over UDP, the same over TCP, and 200 calls with 10 % of the SIP
datagrams dropped in both directions. The last one is done in a network namespace of its own, so that the loss
touches nothing else; it needs root, iptables and ip.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2
import uvicorn
from openai import OpenAI
from served import serving

from offhook.cli.demo.site import free_ports, free_sip_ports

HERE = Path(__file__).parent
KEY, SECRET = "sk-sipp", "whsec_c2lwcC1zaXBwLXNpcHAtc2lwcC1zaXBwLXNpcHA="
(SIP_PORT, _), (HTTP_PORT, APP_PORT) = free_sip_ports(), free_ports(2)

CONFIG = f"""
[server]
http = "127.0.0.1:{HTTP_PORT}"
https = ""
[sip]
listen = ["udp:127.0.0.1:{SIP_PORT}", "tcp:127.0.0.1:{SIP_PORT}"]
[media]
ports = "30000-31998"
[engine]
kind = "scripted"
[[projects]]
id = "proj_sipp"
api_keys = ["{KEY}"]
[[projects.trunks]]
name = "loopback"
sources = ["127.0.0.0/8"]
[[projects.webhooks]]
url = "http://127.0.0.1:{APP_PORT}/"
secret = "{SECRET}"
"""


class App:
    """The developer's app: verifies each webhook with the openai package and accepts while it is still open."""

    def __init__(self) -> None:
        self.webhooks: collections.Counter[str] = collections.Counter()
        self.accepts: collections.Counter[int] = collections.Counter()
        self._openai = OpenAI(api_key=KEY, webhook_secret=SECRET)
        self._http = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{HTTP_PORT}/v1",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=20,
        )

    async def __call__(self, scope, receive, send) -> None:
        assert scope["type"] == "http", scope["type"]
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        event = self._openai.webhooks.unwrap(body, headers)
        self.webhooks[event.data.call_id] += 1
        accept = await self._http.post(
            f"/realtime/calls/{event.data.call_id}/accept",
            json={"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief."},
        )
        self.accepts[accept.status_code] += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        yield


async def run_case(
    name: str, transport: str, calls: int, rate: int, folder: Path, core: int | None = None
) -> list[str]:
    """
    Run one case against a server of its own, on a core of its own if one is named.

    Returns what was wrong, nothing when all went well.
    """
    app = App()
    web = QuietServer(
        uvicorn.Config(
            app, host="127.0.0.1", port=APP_PORT, log_level="warning", lifespan="off", access_log=False
        )
    )
    answering = asyncio.create_task(web.serve())
    try:
        pinned = () if core is None else ("taskset", "-c", str(core))
        async with serving(folder, CONFIG, name=name, before=pinned) as node:
            output = await call_with_sipp(name, transport, calls, rate, folder)
            live = await calls_that_live_on()
    finally:
        web.should_exit = True
        await answering
    return judge(name, calls, app, output, live, node.ended)


async def call_with_sipp(name: str, transport: str, calls: int, rate: int, folder: Path) -> dict[str, str]:
    stats = folder / f"{name}.csv"
    sipp = await asyncio.create_subprocess_exec(
        "sipp", f"127.0.0.1:{SIP_PORT}", "-sf", str(HERE / "uac_call.xml"), "-i", "127.0.0.1",
        "-t", {"udp": "u1", "tcp": "t1"}[transport], "-m", str(calls), "-r", str(rate), "-l", str(calls),
        "-timeout", "120s", "-timeout_error", "-nostdin", "-trace_stat", "-stf", str(stats), "-fd", "1",
        "-trace_err", "-error_file", str(folder / f"{name}.err"), "-max_retrans", "10",
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, complaint = await asyncio.wait_for(sipp.communicate(), 150)
    code = sipp.returncode
    if not stats.exists():
        raise SystemExit(f"SIPp ended with {code}: {complaint.decode()}")
    with stats.open() as file:
        last = list(csv.DictReader(file, delimiter=";"))[-1]
    return last | {"exit": str(code)}


async def calls_that_live_on() -> int:
    """Count the calls that have not ended a few seconds after the last BYE."""
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as client:
        live = 0
        for _ in range(50):
            live = 0
            for state in ("ringing", "accepted", "answered", "active"):
                url = f"http://127.0.0.1:{HTTP_PORT}/v1/realtime/calls?limit=100&state={state}"
                live += len((await client.get(url)).json()["data"])
            if not live:
                return 0
            await asyncio.sleep(0.1)
    return live


def judge(name, calls, app, output, live, exit_code) -> list[str]:
    succeeded, failed = int(output["SuccessfulCall(C)"]), int(output["FailedCall(C)"])
    faults = []
    if output["exit"] != "0" or succeeded != calls or failed:
        faults.append(f"SIPp exit {output['exit']}: {succeeded} of {calls} calls succeeded, {failed} failed")
    if len(app.webhooks) != calls:
        faults.append(f"{len(app.webhooks)} calls were announced, not {calls}")
    if twice := sum(count > 1 for count in app.webhooks.values()):
        faults.append(f"{twice} calls were announced more than once")
    if set(app.accepts) != {200}:
        faults.append(f"accept was answered {dict(app.accepts)}")
    if live:
        faults.append(f"{live} calls live on after their BYE")
    if exit_code != 0:
        faults.append(f"offhook serve ended with {exit_code}")
    print(
        f"{name}: {succeeded}/{calls} answered and ended, {sum(app.webhooks.values())} webhooks, "
        f"accepts {dict(app.accepts)}, {live} left, "
        f"INVITE to 100 mean {output.get('ResponseTime1(C)', '?')}, retransmissions {output.get('Retransmissions(C)')}",
        flush=True,
    )
    return [f"{name}: {fault}" for fault in faults]


def lossy_case(folder: Path, calls: int, rate: int) -> list[str]:
    """Run the third case in a namespace whose loopback drops a tenth of the SIP datagrams, each way."""
    space = f"offhook{os.getpid()}"
    enter = ["ip", "netns", "exec", space]
    subprocess.run(["ip", "netns", "add", space], check=True)
    try:
        subprocess.run([*enter, "ip", "link", "set", "lo", "up"], check=True)
        result = subprocess.run(
            [*enter, sys.executable, __file__, "--lossy", str(calls), str(rate), "--folder", str(folder)],
            timeout=240,
            check=False,
        )
        listing = subprocess.run(
            [*enter, "iptables", "-nvxL", "INPUT"], check=True, capture_output=True, text=True
        )
        dropped = [
            int(line.split()[0]) for line in listing.stdout.splitlines() if "DROP" in line and "udp" in line
        ]
        print(f"udp-loss: dropped {dropped[0]} datagrams to Offhook, {dropped[1]} from it", flush=True)
    finally:
        subprocess.run(["ip", "netns", "del", space], check=True)
    faults = (
        json.loads((folder / "udp-loss.json").read_text())
        if result.returncode == 0
        else ["udp-loss: did not run"]
    )
    return faults if all(dropped) else [*faults, "udp-loss: nothing was dropped"]


def lose_datagrams() -> None:
    """Drop a tenth of them to and from our SIP port, in the namespace that we run in."""
    for side in ("--dport", "--sport"):
        subprocess.run(
            ["iptables", "-A", "INPUT", "-p", "udp", side, str(SIP_PORT), "-m", "statistic",
             "--mode", "random", "--probability", "0.1", "-j", "DROP"],
            check=True,
        )  # fmt: skip


CASES = {
    "udp": ("udp", 500, 50),
    "tcp": ("tcp", 500, 50),
}
LOSSY = (200, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lossy", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for tool in ("sipp", "iptables", "ip"):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is missing: install Debian's sip-tester, iptables and iproute2")
    if arguments.lossy:
        lose_datagrams()
        faults = asyncio.run(run_case("udp-loss", "udp", *arguments.lossy, arguments.folder))
        (arguments.folder / "udp-loss.json").write_text(json.dumps(faults))
        return
    folder = Path(tempfile.mkdtemp(prefix="offhook-sipp-"))
    faults = asyncio.run(run_case("udp", *CASES["udp"], folder))
    faults += asyncio.run(run_case("tcp", *CASES["tcp"], folder))
    faults += lossy_case(folder, *LOSSY)
    if faults:
        print("\n".join(faults), f"logs are in {folder}", sep="\n")
        raise SystemExit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
