"""
What a call costs and how evenly its sound leaves, for the whole product.

`offhook serve` with engine `scripted` that never stops talking, an app that takes the webhook, accepts, and keeps a
sideband attached to each call, and N calls with real PCMU both ways. The peer (`rtp_peer.py`) is a process of its
own and measures the gaps between packets by the kernel's clock. CPU is the server process's alone, from /proc.

    python bench/pacing.py                      10, 50, 100, 200 calls; then the same with one more call
                                                that the embedded engine answers
    python bench/pacing.py --calls 200 --seconds 10 --no-local
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
import uvloop
import websockets
from rtp_peer import RtpPeer

from offhook.cli.demo.site import free_ports, free_sip_ports
from offhook.clock import SystemClock
from offhook.media import negotiate
from offhook.sip.endpoint import Endpoint, EndpointConfig
from offhook.sip.leg import Leg, LegListener
from offhook.sip.message import Response

KEY, SECRET = "sk-bench", "whsec_YmVuY2gtYmVuY2gtYmVuY2gtYmVuY2gtYmVuY2g="
(SIP_PORT, _), (HTTP_PORT, APP_PORT) = free_sip_ports(), free_ports(2)
WARM_UP_S = 3.0
CONFIG = f"""
[server]
http = "127.0.0.1:{HTTP_PORT}"
https = ""
shutdown_grace_s = 0
[sip]
listen = ["udp:127.0.0.1:{SIP_PORT}"]
[media]
ports = "22000-23998"
[engine]
kind = "scripted"
script = "SCRIPT"
[models]
MODELS
[[projects]]
id = "proj_bench"
api_keys = ["{KEY}"]
[[projects.trunks]]
sources = ["127.0.0.0/8"]
[[projects.webhooks]]
url = "http://127.0.0.1:{APP_PORT}/"
secret = "{SECRET}"
"""
LISTEN_ONLY = {"type": "server_vad", "create_response": False, "interrupt_response": False}


class App:
    """Accepts every call, attaches a sideband and makes the agent talk."""

    first_event: str | None = '{"type": "response.create"}'

    def __init__(self) -> None:
        self._http = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{HTTP_PORT}/v1",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=20,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self.events = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        data = json.loads(body)["data"]
        local = any(header["value"].startswith("<sip:local@") for header in data["sip_headers"])
        session = self.session(local=local)
        answer = await self._http.post(f"/realtime/calls/{data['call_id']}/accept", json=session)
        assert answer.status_code == 200, answer.text
        task = asyncio.create_task(self._attend(data["call_id"]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def session(self, *, local: bool) -> dict[str, Any]:
        """Return the body of accept."""
        session: dict[str, Any] = {"type": "realtime", "model": "embedded" if local else "scripted"}
        if not local:
            session["audio"] = {"input": {"turn_detection": LISTEN_ONLY}}
        return session

    async def _attend(self, call_id: str) -> None:
        url = f"ws://127.0.0.1:{HTTP_PORT}/v1/realtime?call_id={call_id}"
        async with websockets.connect(
            url, additional_headers={"Authorization": f"Bearer {KEY}"}, compression=None
        ) as socket:
            if self.first_event is not None:
                await socket.send(self.first_event)
            with contextlib.suppress(websockets.ConnectionClosed):
                async for _ in socket:
                    self.events += 1


class Caller(LegListener):
    """One trunk call whose sound is the peer process's."""

    def __init__(self, peer: RtpPeer) -> None:
        self.peer = peer
        self.answered: asyncio.Future[negotiate.MediaPlan] = asyncio.get_running_loop().create_future()

    def leg_answered(self, leg: Leg, response: Response) -> None:
        plan = negotiate.complete(leg.invite.body, response.body)
        self.peer.add(*plan.remote)
        self.answered.set_result(plan)

    def leg_refused(self, leg: Leg, response: Response | None, reason: str) -> None:
        self.answered.set_exception(RuntimeError(f"refused: {reason}"))


class QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_config(folder: Path, *, local: bool) -> str:
    script = folder / "script.json"
    script.write_text(json.dumps({"talk": True}))
    models = '"embedded" = "local"' if local else ""
    return CONFIG.replace("SCRIPT", str(script)).replace("MODELS", models)


async def start_server(folder: Path, text: str) -> asyncio.subprocess.Process:
    """Return the process of a node with this configuration that is ready to take calls."""
    config = folder / "offhook.toml"
    config.write_text(text)
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "offhook", "serve", "--config", str(config)),
        *("--log-file", str(folder / "serve.log")),
        env=os.environ | {"OFFHOOK_SERVER__DATA_DIR": str(folder / "data")},
        stdout=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(120), httpx2.AsyncClient() as client:
        while True:
            if server.returncode is not None:
                raise SystemExit(f"offhook serve ended: see {folder}/serve.log")
            with contextlib.suppress(httpx2.TransportError):
                if (await client.get(f"http://127.0.0.1:{HTTP_PORT}/readyz")).status_code == 200:
                    return server
            await asyncio.sleep(0.2)


async def measure(calls: int, seconds: float, *, local: bool) -> dict[str, Any]:
    """Place the calls on a server of their own, measure for some seconds, and return the figures."""
    folder = Path(tempfile.mkdtemp(prefix="offhook-bench-"))
    server = await start_server(folder, write_config(folder, local=local))
    web = QuietServer(
        uvicorn.Config(
            App(), host="127.0.0.1", port=APP_PORT, lifespan="off", access_log=False, log_level="error"
        )
    )
    serving = asyncio.create_task(web.serve())
    peer = await RtpPeer.start(seconds + calls * 0.05 + 60)
    phone = Endpoint(EndpointConfig(listen=("udp:127.0.0.1:0",)), clock=SystemClock())
    await phone.start()
    conversation: asyncio.subprocess.Process | None = None
    try:
        legs = [await place(phone, peer, number) for number in range(calls)]
        if local:
            conversation = await start_conversation(seconds + WARM_UP_S)
        await asyncio.sleep(WARM_UP_S)
        peer.reset()
        cpu, began = cpu_seconds(server.pid), asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        cpu = cpu_seconds(server.pid) - cpu
        elapsed = asyncio.get_running_loop().time() - began
        figures = await peer.report()
        turns = await heard_turns() if local else None
        for leg in legs:
            leg.hangup()
        await asyncio.sleep(0.5)
    finally:
        if conversation is not None and conversation.returncode is None:
            conversation.terminate()
            await conversation.wait()
        await phone.close()
        await peer.close()
        server.send_signal(signal.SIGTERM)
        await asyncio.wait_for(server.wait(), 30)
        web.should_exit = True
        await serving
    return {
        "calls": calls,
        "local_call": local,
        "cpu_percent_of_a_core": round(100 * cpu / elapsed, 2),
        "cpu_percent_per_call": round(100 * cpu / elapsed / calls, 4),
        "turns_by_the_local_engine": turns,
        "peer": figures,
    }


async def place(phone: Endpoint, peer: RtpPeer, number: int) -> Leg:
    offer = negotiate.offer(
        negotiate.LocalMedia(host=peer.host, port=peer.port, session_id=number + 1, session_version=1)
    )
    caller = Caller(peer)
    leg = phone.invite(f"sip:proj_bench@127.0.0.1:{SIP_PORT}", from_uri=f"sip:c{number}@127.0.0.1", sdp=offer)
    leg.listener = caller
    await asyncio.wait_for(caller.answered, 10)
    return leg


async def start_conversation(seconds: float) -> asyncio.subprocess.Process:
    """Let somebody speak with the embedded engine meanwhile."""
    says = [
        "Hello, my name is Maria Jones.",
        "I am calling about the water bill.",
        "Can you tell me when you open?",
    ]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "offhook", "call", f"sip:proj_bench@127.0.0.1:{SIP_PORT}"),
        *("--caller", "local"),
        *(argument for text in says for argument in ("--say", text)),
        *("--max-seconds", str(int(seconds) + 1)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def heard_turns() -> int:
    """Count the caller's turns that the embedded engine has put into words."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{HTTP_PORT}/v1/realtime", headers=headers
    ) as client:
        listed = (await client.get("/calls?limit=100&number=local%40")).json()["data"]
        turns = 0
        for call in listed:
            entries = (await client.get(f"/calls/{call['id']}/timeline")).json()["data"]
            turns += sum(entry["kind"] == "heard" for entry in entries)
        return turns


def show(result: dict[str, Any]) -> None:
    peer = result["peer"]
    gap = peer["gap_ms"]
    local = (
        f", embedded engine heard {result['turns_by_the_local_engine']} turns" if result["local_call"] else ""
    )
    print(
        f"{result['calls']:4} calls: {result['cpu_percent_per_call']:.3f} % of a core per call,"
        f" send gap p50 {gap['p50']:.2f} p99 {gap['p99']:.2f} max {gap['max']:.2f} ms,"
        f" {peer['lost']} of {peer['received']} packets lost, {peer['silent']} calls silent"
        f" (peer {peer['own_cpu_percent']} % of a core){local}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, nargs="*", default=[10, 50, 100, 200])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--no-local", action="store_true", help="leave out the runs beside the embedded engine"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for local in (False,) if arguments.no_local else (False, True):
        for calls in arguments.calls:
            result = uvloop.run(measure(calls, arguments.seconds, local=local))
            if arguments.json:
                print(json.dumps(result), flush=True)
            else:
                show(result)


if __name__ == "__main__":
    main()
