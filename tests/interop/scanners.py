"""
What scans the internet meets `offhook serve`: sipvicious, sipsak's broken messages, and peers with a password.

Run by `make interop`. To a node that does not list them, svmap, svwar and svcrack are nobody: no answer, no webhook,
one entry. On one that lists them, svwar finds one answer for every user. Others know a trunk by its password: svwar
finds one answer again; `offhook call` gets in by SHA-256, sipsak and SIPp, which know MD5 alone, where that is all that
is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
from served import Served, serving

KEY, SECRET = "sk-scan", "whsec_c2lwcC1zaXBwLXNpcHAtc2lwcC1zaXBwLXNpcHA="
SCANNER, OTHER = "127.0.0.1", "127.0.0.2"
"Where the tools send from, whatever their options say, and the address of somebody else."
TOOLS = {
    "svmap": "sipvicious",
    "svwar": "sipvicious",
    "svcrack": "sipvicious",
    "sipsak": "sipsak",
    "sipp": "sip-tester",
}

CONFIG = """
[server]
http = "127.0.0.1:0"
https = ""
[sip]
listen = ["udp:127.0.0.1:0", "tcp:127.0.0.1:0"]
[media]
ports = "28000-28198"
[calls]
ring_timeout_s = 2
[engine]
kind = "scripted"
[[projects]]
id = "proj_100"
api_keys = ["{key}"]
numbers = ["150"]
{project}
[[projects.trunks]]
{trunk}
"""

WEBHOOK = '[[projects.webhooks]]\nurl = "http://127.0.0.1:{port}/"\nsecret = "{secret}"'
BY_PASSWORD = (
    'name = "edge"\ndigest_user = "edge"\ndigest_password = "s3cret"\ndigest_algorithms = {algorithms}'
)
ANSWERS = 'fallback = { accept = { type = "realtime" } }'

SIPP_CALL = """<?xml version="1.0"?>
<scenario name="a call with a password">
<send retrans="500"><![CDATA[
INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:edge@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:[service]@[remote_ip]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:edge@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

v=0
o=- 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio [media_port] RTP/AVP 0
]]></send>
<recv response="401" auth="true"/>
<send><![CDATA[
ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0
[last_Via:]
[last_From:]
[last_To:]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
<send retrans="500"><![CDATA[
INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:edge@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:[service]@[remote_ip]>
Call-ID: [call_id]
CSeq: 2 INVITE
Contact: <sip:edge@[local_ip]:[local_port]>
[authentication username=edge password={password}]
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

v=0
o=- 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio [media_port] RTP/AVP 0
]]></send>
<recv response="100" optional="true"/>
<recv response="180" optional="true"/>
<recv response="183" optional="true"/>
<recv response="200"/>
<send><![CDATA[
ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
[last_From:]
[last_To:]
Call-ID: [call_id]
CSeq: 2 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
<pause milliseconds="300"/>
<send retrans="500"><![CDATA[
BYE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
[last_From:]
[last_To:]
Call-ID: [call_id]
CSeq: 3 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
<recv response="200"/>
</scenario>
"""

faults: list[str] = []


def check(holds: bool, what: str) -> None:
    print(("ok     " if holds else "FAULT  ") + what, flush=True)
    if not holds:
        faults.append(what)


async def refused(node: Served) -> dict[str, dict]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as client:
        body = (await client.get(f"{node.http}/v1/realtime/refused_sources")).json()
    return {entry["address"]: entry for entry in body["data"]}


@contextlib.asynccontextmanager
async def listening_for(folder: Path, name: str, project: str, trunk: str) -> AsyncIterator[Served]:
    config = CONFIG.format(key=KEY, project=project, trunk=trunk)
    async with serving(folder, config, name=name) as node:
        yield node
    check(node.ended == 0, f"{name}: offhook serve ended in order")


async def run(*command: str, seconds: float = 20, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a tool to its end, or until it has had its time."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | (env or {}),
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()
        return -1, ""
    return process.returncode or 0, output.decode(errors="replace")


async def options_ms(port: int, source: str) -> float:
    """Return how long the answer to an OPTIONS from a listed address takes."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[bytes] = loop.create_future()

    class Ping(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            if not arrived.done():
                arrived.set_result(data)

    transport, _ = await loop.create_datagram_endpoint(Ping, local_addr=(source, 0))
    host, local = transport.get_extra_info("sockname")
    lines = [
        f"OPTIONS sip:ping@127.0.0.1:{port} SIP/2.0",
        f"Via: SIP/2.0/UDP {host}:{local};branch=z9hG4bK{time.monotonic_ns()}",
        "From: <sip:ping@127.0.0.1>;tag=1",
        "To: <sip:ping@127.0.0.1>",
        f"Call-ID: {time.monotonic_ns()}",
        "CSeq: 1 OPTIONS",
        "Max-Forwards: 70",
        "Content-Length: 0",
    ]
    began = time.monotonic()
    transport.sendto("\r\n".join([*lines, "", ""]).encode(), ("127.0.0.1", port))
    try:
        answer = await asyncio.wait_for(arrived, 2)
    except TimeoutError:
        return float("inf")
    finally:
        transport.close()
    return (time.monotonic() - began) * 1000 if answer.startswith(b"SIP/2.0 200") else float("inf")


async def by_address(folder: Path) -> None:
    """What scans from 127.0.0.1, where all of these tools send from: first as a stranger, then as a listed source."""
    told = 0

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal told
        told += 1
        writer.close()

    listening = await asyncio.start_server(app, "127.0.0.1", 0)
    webhook = WEBHOOK.format(port=listening.sockets[0].getsockname()[1], secret=SECRET)
    async with listening_for(folder, "stranger", webhook, f'sources = ["{OTHER}/32"]') as node:
        port = str(node.sip)
        check(await options_ms(node.sip, OTHER) < 500, "a listed source is answered")
        before = node.rss_mb
        for command in (
            ("svmap", "-p", port, "127.0.0.1"),
            ("svmap", "-p", port, "-m", "INVITE", "127.0.0.1"),
            ("svwar", "-p", port, "--force", "-e100-199", "-m", "INVITE", "--maximumtime=3", "127.0.0.1"),
            ("svcrack", "-p", port, "-u100", "-r1-99", "--maximumtime=3", "127.0.0.1"),
        ):
            _, output = await run(*command, seconds=8)
            # What it finds, it prints as a row of a table; an unanswered scan has none.
            found = re.search(r"\| (127|1\d\d )", output)
            check(found is None, f"{command[0]} of a stranger finds nothing")
        for _ in range(2):
            await scan_by_hand(node.sip)
        entries = await refused(node)
        check(set(entries) == {SCANNER}, f"one entry for the stranger: {list(entries)}")
        entry = entries.get(SCANNER, {})
        check(
            entry.get("count", 0) >= 400,
            f"which counts {entry.get('count')} datagrams: {entry.get('remedy')}",
        )
        lines = [
            line for line in (folder / "stranger.log").read_text().splitlines() if f'"{SCANNER}"' in line
        ]
        check(1 <= len(lines) <= 4, f"{len(lines)} log lines about it")
        check(node.rss_mb - before < 4, f"memory {before:.1f} MB before, {node.rss_mb:.1f} MB after")
        delay = min([await options_ms(node.sip, OTHER) for _ in range(3)])
        check(delay < 50, f"OPTIONS of a listed source takes {delay:.1f} ms")
        check(told == 0, f"{told} webhooks")
    async with listening_for(folder, "listed", webhook, f'sources = ["{SCANNER}/32"]') as node:
        port = str(node.sip)
        _, output = await run("svwar", "-p", port, "--force", "-e100-149", "-m", "INVITE", "127.0.0.1")
        check(not re.search(r"\| 1\d\d +\|", output), "svwar of a listed source cannot tell users apart")
        entry = (await refused(node)).get(SCANNER, {})
        check(set(entry.get("reasons", {})) == {"unknown_project"}, f"and is counted: {entry.get('reasons')}")
        code, _ = await run("sipsak", "-s", f"sip:ping@127.0.0.1:{port}")
        check(code == 0, "sipsak's OPTIONS is answered 200")
        for _ in range(5):
            await run("sipsak", "-R", "-t", "40", "-s", f"sip:ping@127.0.0.1:{port}", seconds=1)
        await run("sipsak", "-F", "-e", "500", "-s", f"sip:ping@127.0.0.1:{port}", seconds=2)
        delay = min([await options_ms(node.sip, SCANNER) for _ in range(3)])
        check(delay < 50, f"after sipsak's broken messages and its flood, OPTIONS takes {delay:.1f} ms")
        check(told == 0, f"{told} webhooks")
    listening.close()


async def scan_by_hand(port: int) -> None:
    """Send 200 INVITEs as friendly-scanner does, and see that none is answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as scanner:
        scanner.bind((SCANNER, 0))
        scanner.setblocking(False)
        for user in range(200):
            lines = [
                f"INVITE sip:{user}@127.0.0.1 SIP/2.0",
                f"Via: SIP/2.0/UDP {SCANNER}:{scanner.getsockname()[1]};branch=z9hG4bK-{user};rport",
                f'From: "sipvicious" <sip:100@1.1.1.1>;tag={user}',
                'To: "sipvicious" <sip:100@1.1.1.1>',
                f"Call-ID: {user}",
                "CSeq: 1 INVITE",
                "Contact: <sip:100@127.0.0.1>",
                "User-Agent: friendly-scanner",
                "Max-Forwards: 70",
                "Content-Length: 0",
            ]
            scanner.sendto("\r\n".join([*lines, "", ""]).encode(), ("127.0.0.1", port))
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        try:
            data = scanner.recv(2048)
        except BlockingIOError:
            data = b""
    check(not data, "200 INVITEs of friendly-scanner are not answered")


async def by_password(folder: Path) -> None:
    """One trunk has a password and no sources."""
    both, md5 = '["SHA-256", "MD5"]', '["MD5"]'
    async with listening_for(folder, "by-password", ANSWERS, BY_PASSWORD.format(algorithms=both)) as node:
        port = str(node.sip)
        command = (
            "svwar",
            "-p",
            port,
            "--force",
            "-e100-149",
            "-m",
            "INVITE",
            "--maximumtime=4",
            "127.0.0.1",
        )
        _, output = await run(*command)
        found = dict(re.findall(r"\| (1\d\d) +\| (\w+)", output))
        check(
            set(found.values()) <= {"reqauth"},
            f"svwar finds one answer for every user: {set(found.values())}",
        )
        for password, expected in (("s3cret", 0), ("wrong", 1)):
            code, output = await run(
                *(sys.executable, "-m", "offhook", "call", f"sip:proj_100@127.0.0.1:{port}", "--json"),
                *("--hangup-after", "0.2", "--patience", "0.5", "--max-seconds", "10", "--user", "edge"),
                env={"OFFHOOK_CALL_PASSWORD": password},
            )
            check(code == expected, f"offhook call with the password {password!r}: exit {code}")
        reasons = (await refused(node)).get(SCANNER, {}).get("reasons", {})
        check(reasons.get("wrong_credentials") == 1, f"the wrong one is counted: {reasons}")
    async with listening_for(folder, "by-md5", ANSWERS, BY_PASSWORD.format(algorithms=md5)) as node:
        for password, expected in (("s3cret", 0), ("wrong", 1)):
            scenario = folder / "call.xml"
            scenario.write_text(SIPP_CALL.replace("{password}", password))
            code, output = await run(
                *("sipp", f"127.0.0.1:{node.sip}", "-sf", str(scenario), "-s", "proj_100", "-i", SCANNER),
                *("-m", "5", "-r", "5", "-nostdin", "-recv_timeout", "3000", "-timeout", "10s"),
            )
            check((code != 0) == bool(expected), f"SIPp with MD5 and the password {password!r}: exit {code}")
        for password, expected in (("s3cret", 0), ("wrong", 2)):
            code, _ = await run(
                "sipsak", "-u", "edge", "-a", password, "-s", f"sip:edge@127.0.0.1:{node.sip}", seconds=5
            )
            check(code == expected, f"sipsak's OPTIONS with MD5 and the password {password!r}: exit {code}")


def main() -> None:
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        raise SystemExit(f"missing: install Debian's {' and '.join(missing)}")
    folder = Path(tempfile.mkdtemp(prefix="offhook-scan-"))
    asyncio.run(by_address(folder))
    asyncio.run(by_password(folder))
    if faults:
        print(*faults, f"logs are in {folder}", sep="\n")
        raise SystemExit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
