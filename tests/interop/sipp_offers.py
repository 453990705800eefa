"""
SIPp holds, moves, offers late or not at all, cancels in the wrong moment and loses its ACKs.

Run by `make interop`. All scenarios of `offers/` run side by side against one `offhook serve` with no app: the project
accepts by its fallback. One of them waits 32 s for the BYE after a 200 that nobody acknowledges.
"""

from __future__ import annotations

import asyncio
import collections
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from served import serving

from offhook.cli.demo.site import free_ports, free_sip_ports

HERE = Path(__file__).parent
KEY = "sk-offers"
(SIP_PORT, _), (HTTP_PORT,) = free_sip_ports(), free_ports(1)
PEERS_MEDIA = 19_000
"SIPp binds what it is told to: below the ports of this node and of those that other scripts run meanwhile."

CONFIG = f"""
[server]
http = "127.0.0.1:{HTTP_PORT}"
https = ""
[sip]
listen = ["udp:127.0.0.1:{SIP_PORT}"]
[media]
ports = "32000-33998"
[engine]
kind = "scripted"
[[projects]]
id = "proj_sipp"
api_keys = ["{KEY}"]
fallback = {{ accept = {{ type = "realtime" }} }}
[[projects.trunks]]
name = "loopback"
sources = ["127.0.0.0/8"]
[[projects]]
id = "proj_ring"
api_keys = ["{KEY}-ring"]
[[projects.trunks]]
name = "loopback"
sources = ["127.0.0.0/8"]
[[projects.webhooks]]
url = "http://127.0.0.1:9/"
secret = "whsec_c2lwcC1zaXBwLXNpcHAtc2lwcC1zaXBwLXNpcHA="
"""


@dataclass(frozen=True)
class Case:
    """One scenario file: how often, and how the node must say that its calls ended."""

    calls: int
    reason: str
    cause: str
    key: str = KEY


CASES = {
    "hold_resume": Case(20, "remote_hangup", "the caller hung up"),
    "offerless_reinvite": Case(20, "remote_hangup", "the caller hung up"),
    "late_offer": Case(20, "remote_hangup", "the caller hung up"),
    "late_offer_unanswered": Case(
        20, "failed", "no common sound: the ACK has no answer to the offer in our 200"
    ),
    "cancel": Case(20, "cancelled", "the caller hung up while it rang", f"{KEY}-ring"),
    "cancel_crosses_200": Case(20, "remote_hangup", "the caller hung up"),
    "lost_ack": Case(10, "remote_hangup", "the caller hung up"),
    "missing_ack": Case(10, "failed", "no ACK to our 200 within 32 s"),
}


async def main() -> list[str]:
    folder = Path(tempfile.mkdtemp(prefix="offhook-offers-"))
    async with serving(folder, CONFIG) as node:
        outcomes = await asyncio.gather(
            *(play(name, case, number, folder) for number, (name, case) in enumerate(CASES.items()))
        )
        await asyncio.sleep(1)
        faults = [fault for outcome in outcomes for fault in outcome]
        for name, case in CASES.items():
            faults += await judge(name, case)
    if node.ended:
        faults.append(f"offhook serve ended with {node.ended}")
    if faults:
        print(f"logs are in {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return faults


async def play(name: str, case: Case, number: int, folder: Path) -> list[str]:
    """Run one scenario; the Call-IDs begin with its name."""
    errors = folder / f"{name}.err"
    sipp = await asyncio.create_subprocess_exec(
        "sipp", f"127.0.0.1:{SIP_PORT}", "-sf", str(HERE / "offers" / f"{name}.xml"), "-i", "127.0.0.1",
        "-mp", str(PEERS_MEDIA + 4 * number), "-t", "u1",
        "-cid_str", f"{name}-%u-%p@%s", "-m", str(case.calls), "-r", "10", "-l", str(case.calls),
        "-timeout", "55s", "-timeout_error", "-nostdin", "-trace_err", "-error_file", str(errors),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, complaint = await asyncio.wait_for(sipp.communicate(), 70)
    if sipp.returncode == 0:
        return []
    said = errors.read_text()[:600] if errors.exists() else complaint.decode()[:600]
    return [f"{name}: SIPp ended with {sipp.returncode}: {said}"]


async def judge(name: str, case: Case) -> list[str]:
    calls = [call for call in await ended_calls(case.key) if call["sip_call_id"].startswith(f"{name}-")]
    ends = collections.Counter(
        (call["termination"]["reason"], call["termination"]["cause"].split(" (")[0].split(";")[0])
        for call in calls
        if call["termination"]
    )
    print(f"{name:24}{sum(ends.values()):4} of {case.calls} calls ended: {dict(ends)}", flush=True)
    faults = []
    if ends != {(case.reason, case.cause): case.calls}:
        faults.append(f"{name}: expected {case.calls} to end as {case.reason}, {case.cause!r}")
    if name == "lost_ack":
        sent = [await answers_sent(call["id"], case.key) for call in calls]
        print(f"{'':24}     200 was sent {collections.Counter(sent)} times", flush=True)
        if set(sent) != {3}:
            faults.append(f"{name}: the 200 was to be sent at 0, 0.5 and 1.5 s, three times in all")
    return faults


async def ended_calls(key: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as client:
        after = ""
        while True:
            url = f"http://127.0.0.1:{HTTP_PORT}/v1/realtime/calls?limit=100{after}"
            page = (await client.get(url)).json()
            found += page["data"]
            if not page.get("has_more"):
                return found
            after = f"&after={page['last_id']}"


async def answers_sent(call_id: str, key: str) -> int:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as client:
        url = f"http://127.0.0.1:{HTTP_PORT}/v1/realtime/calls/{call_id}/timeline"
        entries = (await client.get(url)).json()["data"]
    texts = [str(entry) for entry in entries if entry["kind"] == "sip"]
    return sum("SIP/2.0 200" in text and "1 INVITE" in text for text in texts)


if __name__ == "__main__":
    if not shutil.which("sipp"):
        raise SystemExit("sipp is missing: install Debian's sip-tester")
    found = asyncio.run(main())
    print("\n".join(found))
    raise SystemExit(1 if found else 0)
