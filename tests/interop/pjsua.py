"""
PJSIP calls `offhook serve`, and is called, with session timers (RFC 4028): each side refreshes once and both live.

Run by `make interop`. The peer is the wheel pjsua2-python, which is GPL: it gets an environment of its own beside the
project's (`.venv-pjsua2`, made on the first run), and only this script talks to it, over SIP. PJSIP takes no interval
below 90 s, so a refresh comes after 45 s; all calls run side by side.

- `peer refreshes`: PJSIP calls with 90 s and no refresher; it is told to refresh, and does.
- `node refreshes`: PJSIP calls without session timers; with `refresh_always` the node refreshes.
- `422`: PJSIP asks a second node, which takes no less than 120 s, for 90 s; it calls again with 120 s.
- `we refresh`: our user agent calls PJSIP with 90 s and refreshes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from served import Served, serving

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENT = ROOT / ".venv-pjsua2"
WHEEL = "pjsua2-python==2.15.1.post1"
KEY, SECRET = "sk-pjsua", "whsec_cGpzdWEtcGpzdWEtcGpzdWEtcGpzdWEtcGpzdWE="
MEDIA = (32000, 32200)
LASTS_S = 50.0

CONFIG = """
[server]
http = "127.0.0.1:{http}"
https = ""
[sip]
listen = ["udp:127.0.0.1:{sip}", "tcp:127.0.0.1:{sip}"]
session_expires_s = 90
min_se_s = {min_se}
refresh_always = true
[media]
ports = "{media}-{media_end}"
[engine]
kind = "scripted"
[[projects]]
id = "proj_pjsua"
api_keys = ["{key}"]
fallback = {{ accept = {{ type = "realtime", model = "gpt-realtime" }} }}
[[projects.trunks]]
name = "loopback"
sources = ["127.0.0.0/8"]
"""


# The peer: runs in the other environment, and says what happened as one line of JSON.


def run_peer(sip_ports: list[int], credentials: str) -> None:
    """
    Place calls to two nodes, answer one, and keep them up until standard input ends.

    `credentials` is `user:password` for trunks that want digest.
    """
    import pjsua2 as pj

    report: dict[str, dict[str, object]] = {}

    class Call(pj.Call):
        def __init__(self, account, name, call_id=pj.PJSUA_INVALID_ID):
            super().__init__(account, call_id)
            self.name, self.messages = name, []
            report[name] = {"state": "", "status": 0, "received": 0}

        def onCallState(self, prm):
            info = self.getInfo()
            report[self.name].update(state=info.stateText, status=int(info.lastStatusCode))

        def onCallTsxState(self, prm):
            event = prm.e.body.tsxState
            seen = report[self.name].setdefault("seen", [])
            seen.append(f"{event.tsx.method} {int(event.tsx.statusCode)}")

        def count(self):
            with contextlib.suppress(pj.Error):
                report[self.name]["received"] = int(self.getStreamStat(0).rtcp.rxStat.pkt)

    calls = []

    class Account(pj.Account):
        def onIncomingCall(self, prm):
            call = Call(self, "we refresh", prm.callId)
            calls.append(call)
            answer = pj.CallOpParam()
            answer.statusCode = 200
            call.answer(answer)

    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.logConfig.level = config.logConfig.consoleLevel = 0
    config.medConfig.noVad = True
    endpoint.libInit(config)
    transport = pj.TransportConfig()
    transport.port, transport.boundAddress = 0, "127.0.0.1"
    udp = endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
    address = endpoint.transportGetInfo(udp).localName
    endpoint.libStart()
    endpoint.audDevManager().setNullDev()
    for codec in endpoint.codecEnum2():
        endpoint.codecSetPriority(codec.codecId, 200 if codec.codecId.startswith("PCMU") else 0)

    def account(use) -> Account:
        config = pj.AccountConfig()
        config.idUri = f"sip:+14155550100@{address}"
        config.callConfig.timerUse = use
        config.callConfig.timerMinSESec = config.callConfig.timerSessExpiresSec = 90
        if credentials:
            user, _, password = credentials.partition(":")
            config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", user, 0, password))
        made = Account()
        made.create(config)
        return made

    timers, without = account(pj.PJSUA_SIP_TIMER_OPTIONAL), account(pj.PJSUA_SIP_TIMER_INACTIVE)
    timers.setDefault()
    for name, who, port in (
        ("peer refreshes", timers, sip_ports[0]),
        ("node refreshes", without, sip_ports[0]),
        ("422", timers, sip_ports[1]),
    ):
        call = Call(who, name)
        calls.append(call)
        call.makeCall(f"sip:proj_pjsua@127.0.0.1:{port}", pj.CallOpParam(True))
    print("calling from", address, flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        endpoint.libHandleEvents(20)
    for call in calls:
        call.count()
    print(json.dumps(report), flush=True)
    endpoint.hangupAllCalls()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        endpoint.libHandleEvents(20)
    sys.stdout.flush()
    # Its destructors run in an order that Python does not promise.
    os._exit(0)


# The rest runs in the project's environment.


def make_environment() -> Path:
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "installed").exists():
        print(f"making {ENVIRONMENT.name} with {WHEEL} (once) ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", WHEEL]
        if subprocess.run(pip, check=False).returncode:
            raise SystemExit(f"{WHEEL} is missing: pip could not install it (no Debian package has it)")
        (ENVIRONMENT / "installed").write_text(WHEEL)
    return python


def a_node(folder: Path, number: int, min_se: int) -> contextlib.AbstractAsyncContextManager[Served]:
    """Run a node on ports of its own."""
    from offhook.cli.demo.site import free_ports, free_sip_ports

    (sip, _), (http,) = free_sip_ports(), free_ports(1)
    media = MEDIA[number]
    config = CONFIG.format(http=http, sip=sip, min_se=min_se, media=media, media_end=media + 98, key=KEY)
    place = folder / str(number)
    place.mkdir()
    return serving(place, config)


class OurCall:
    """Our user agent's call to PJSIP, and what its session timer says."""

    def __init__(self) -> None:
        from offhook.clock import SystemClock
        from offhook.media import negotiate
        from offhook.sip.endpoint import Endpoint, EndpointConfig, LegListener
        from offhook.sip.session_timer import SessionTimerConfig
        from offhook.trace import StateChange

        class Listener(LegListener):
            pass

        self.said: list[str] = []
        self._endpoint = Endpoint(
            EndpointConfig(listen=("udp:127.0.0.1:0",), session=SessionTimerConfig(interval=90)),
            clock=SystemClock(),
        )
        self._listener = Listener()
        self._offer = negotiate.offer(
            negotiate.LocalMedia(host="127.0.0.1", port=32_400, session_id=1, session_version=1)
        )
        self._change = StateChange

    async def place(self, address: str) -> None:
        await self._endpoint.start()
        self.leg = self._endpoint.invite(
            f"sip:+14155550100@{address}", from_uri="sip:offhook@127.0.0.1", sdp=self._offer
        )
        self.leg.listener = self._listener
        self.leg.trace = lambda item: (
            self.said.append(f"{item.state} ({item.reason})")
            if isinstance(item, self._change) and item.subject == "session timer"
            else None
        )

    async def end(self) -> str:
        state = self.leg.state
        self.leg.hangup()
        await asyncio.sleep(0.3)
        await self._endpoint.close()
        return state


async def timelines(node: Served) -> list[tuple[str, list[str], list[str]]]:
    """Return state, lines of the session timer and SIP messages of each of a node's calls."""
    import httpx2

    found = []
    url = f"{node.http}/v1/realtime/calls"
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as client:
        for call in (await client.get(url)).json()["data"]:
            entries = (await client.get(f"{url}/{call['id']}/timeline")).json()["data"]
            titles = [entry["title"] for entry in entries]
            lines = [t.removeprefix("session timer: ") for t in titles if t.startswith("session timer")]
            messages = [entry["title"] for entry in entries if entry["kind"] == "sip"]
            found.append((call["state"], lines, messages))
    return found


async def run(folder: Path, python: Path, credentials: str) -> list[str]:
    async with a_node(folder, 0, 90) as first, a_node(folder, 1, 120) as second:
        return await call_from_pjsip((first, second), python, credentials)


async def call_from_pjsip(nodes: tuple[Served, Served], python: Path, credentials: str) -> list[str]:
    peer = await asyncio.create_subprocess_exec(
        str(python), __file__, "--peer", *(str(node.sip) for node in nodes), "--credentials", credentials,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert peer.stdin is not None
        assert peer.stdout is not None
        async with asyncio.timeout(20):
            while (line := await peer.stdout.readline()) and not line.startswith(b"calling from "):
                pass
        ours = OurCall()
        await ours.place(line.split()[-1].decode())
        await asyncio.sleep(LASTS_S)
        of_nodes = [await timelines(node) for node in nodes]
        our_state = await ours.end()
        peer.stdin.close()
        async with asyncio.timeout(15):
            report = json.loads((await peer.stdout.read()).decode().strip().splitlines()[-1])
    finally:
        if peer.returncode is None:
            peer.send_signal(signal.SIGTERM)
        await asyncio.wait_for(peer.wait(), 30)
    return judge(of_nodes, our_state, ours.said, report)


def judge(of_nodes, our_state: str, our_lines: list[str], report: dict[str, dict]) -> list[str]:
    seen = {"we refresh": (our_state, our_lines, [])}
    for state, lines, messages in of_nodes[0]:
        seen["peer refreshes" if "90 s (the peer refreshes)" in lines else "node refreshes"] = (
            state,
            lines,
            messages,
        )
    for state, lines, messages in of_nodes[1]:
        seen["422"] = (state, lines, messages)
    wanted = {
        "peer refreshes": ("active", "90 s (the peer refreshes)", "refreshed (by the peer's "),
        "node refreshes": ("active", "90 s (we refresh every 45 s; the peer", "refreshed (by our "),
        "422": ("active", "120 s (the peer refreshes)", "120 s"),
        "we refresh": ("confirmed", "90 s (we refresh every 45 s)", "refreshed (by our "),
    }
    faults = []
    print(f"{'case':16}{'node or agent says':100}{'PJSIP':14}{'RTP heard'}")
    for name, (state, terms, refreshed) in wanted.items():
        if name not in seen:
            faults.append(f"{name}: no such call")
            continue
        is_state, lines, _ = seen[name]
        theirs = report.get(name, {})
        matching = [line for line in lines if line.startswith(refreshed)]
        said = "; ".join([is_state, *dict.fromkeys([*lines[:1], *matching[:1]])])
        print(f"{name:16}{said:100.98}{theirs.get('state')!s:14}{theirs.get('received')}")
        if is_state != state or not any(line.startswith(terms) for line in lines) or not matching:
            faults.append(f"{name}: wanted {state}, {terms!r}, {refreshed!r}; got {is_state}, {lines}")
        # Our own agent of the last case has hung up by then.
        if name != "we refresh" and (theirs.get("state") != "CONFIRMED" or not theirs.get("received")):
            faults.append(f"{name}: PJSIP says {theirs}")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--credentials", default="", help="user:password for a trunk that wants digest")
    arguments = parser.parse_args()
    if arguments.peer:
        run_peer(arguments.peer, arguments.credentials)
        return
    folder = Path(tempfile.mkdtemp(prefix="offhook-pjsua-"))
    faults = asyncio.run(run(folder, make_environment(), arguments.credentials))
    if faults:
        print("\n".join(faults), f"logs are in {folder}", sep="\n")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
