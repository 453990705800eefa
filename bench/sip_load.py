"""
SIPp against `offhook serve` with one core to itself: how fast, and how sturdy.

    python bench/sip_load.py rate      200 calls/s set up and ended, of a project whose fallback accepts at once
    python bench/sip_load.py accept    50 calls/s that an app accepts by webhook
    python bench/sip_load.py loss      1,000 calls with 10 % of the SIP datagrams lost, each way
    python bench/sip_load.py memory    20,000 calls, of which 2,000 are never acknowledged and 2,000 are cancelled

`--calls` and `--rate` make each smaller; `--check` ends with 1 when a target is missed. SIPp, the app and tcpdump share
the other core. Needs Debian's sip-tester and tcpdump, and root for tcpdump and for the namespace that loses datagrams.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from sip_capture import SipCapture, capturing

INTEROP = Path(__file__).parents[1] / "tests" / "interop"
INSIDE = Path(__file__).with_name("sip_inside.py")
SIP_PORT, HTTP_PORT = 15160, 18180
NODE_CORE, OTHER_CORE = 1, 0
TO_100_MS = 2.0
"The target for 95 of 100 INVITEs."
FORGOTTEN_S = 72
"After so long nothing of a call is kept but its timeline: 32 s for a 200 that nobody acknowledges, 32 s for its BYE."
GROWTH = 0.05
"What the second half's peak of memory may lie above the first half's."

CONFIG = f"""
[server]
http = "127.0.0.1:{HTTP_PORT}"
https = ""
[sip]
listen = ["udp:127.0.0.1:{SIP_PORT}"]
[media]
ports = "30000-40998"
[calls]
max_concurrent = 5000
max_unanswered = 5000
max_unanswered_per_source = 5000
[engine]
kind = "scripted"
[[projects]]
id = "proj_sipp"
fallback = {{ accept = {{ type = "realtime", model = "gpt-realtime" }} }}
[[projects.trunks]]
sources = ["127.0.0.0/8"]
[[projects]]
id = "proj_ring"
[[projects.trunks]]
sources = ["127.0.0.0/8"]
[[projects.webhooks]]
url = "http://127.0.0.1:9/"
secret = "whsec_c2lwcC1zaXBwLXNpcHAtc2lwcC1zaXBwLXNpcHA="
"""

CANCEL = """
  <recv response="100"/>
  <recv response="180"/>
  <send retrans="500" start_txn="cancel"><![CDATA[
      CANCEL sip:proj_ring@[remote_ip]:[remote_port];transport=[transport] SIP/2.0
      [last_Via:]
      Max-Forwards: 70
      From: "SIPp" <sip:+1555[call_number]@[local_ip]:[local_port]>;tag=[pid]c[call_number]
      To: <sip:proj_ring@[remote_ip]:[remote_port]>
      Call-ID: [call_id]
      CSeq: 1 CANCEL
      Content-Length: 0

  ]]></send>
  <recv response="200" response_txn="cancel"/>
  <recv response="487"/>
  <send><![CDATA[
      ACK sip:proj_ring@[remote_ip]:[remote_port];transport=[transport] SIP/2.0
      [last_Via:]
      Max-Forwards: 70
      From: "SIPp" <sip:+1555[call_number]@[local_ip]:[local_port]>;tag=[pid]c[call_number]
      To: <sip:proj_ring@[remote_ip]:[remote_port]>[peer_tag_param]
      Call-ID: [call_id]
      CSeq: 1 ACK
      Content-Length: 0

  ]]></send>
</scenario>
"""


def scenarios() -> dict[str, str]:
    """Return the ways to call, made of the interop tests' one."""
    text = (INTEROP / "uac_call.xml").read_text()
    text = text.replace('<pause milliseconds="1000"/>', '<pause milliseconds="100"/>')
    invite, answered = text.split('  <recv response="100" optional="true" rtd="1"/>')
    no_ack = answered[: answered.index("  <send>")]
    return {
        "call": text,
        "never acknowledged": f'{invite}  <recv response="100" optional="true" rtd="1"/>{no_ack}</scenario>\n',
        "cancelled": invite.replace("proj_sipp", "proj_ring").replace(' start_rtd="1"', "") + CANCEL,
    }


class Server:
    """`offhook serve` on a core of its own, in a way that lets one look inside. Use as a context manager."""

    def __init__(self, folder: Path, *, realtime: bool = False) -> None:
        self._folder = folder
        self._realtime = realtime
        self._held = folder / "held.json"
        (folder / "offhook.toml").write_text(CONFIG)

    def __enter__(self) -> Server:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(NODE_CORE), sys.executable, str(INSIDE), str(self._held), "serve",
                 "--log-level", "WARNING", "--config", str(self._folder / "offhook.toml")],
                stdout=log, stderr=log, env=os.environ | {"OFFHOOK_SERVER__DATA_DIR": str(self._folder / "data")},
            )  # fmt: skip
        for _ in range(300):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}/readyz", timeout=2)
                if self._realtime:
                    # Its main thread only: on one core, two of this class would wait for each other.
                    policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
                    os.sched_setscheduler(self._process.pid, policy, os.sched_param(10))
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit(f"offhook serve did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(40)

    def memory(self) -> tuple[float, int]:
        """Return resident memory in MB, and open descriptors."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) / 1024, len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def held(self) -> dict[str, int]:
        """Return how many of each kind of thing it still has of calls."""
        self._held.unlink(missing_ok=True)
        self._process.send_signal(signal.SIGUSR2)
        for _ in range(100):
            time.sleep(0.1)
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                return json.loads(self._held.read_text())
        raise SystemExit("the server does not say what it holds")


class Sipp:
    """One SIPp that makes calls of one kind."""

    def __init__(self, name: str, calls: int, rate: float, folder: Path) -> None:
        self._name, self._calls, self._rate = name, calls, rate
        file = folder / f"{name.replace(' ', '_')}.xml"
        file.write_text(scenarios()[name])
        self._stats = file.with_suffix(".csv")
        self._stats.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            ["sipp", f"127.0.0.1:{SIP_PORT}", "-sf", str(file), "-i", "127.0.0.1", "-t", "u1", "-m", str(calls),
             "-r", str(rate), "-l", "5000", "-timeout", "900s", "-nostdin", "-trace_stat", "-stf",
             str(self._stats), "-fd", "1", "-max_retrans", "10"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def finish(self) -> list[str]:
        """Print what came of the calls, and return what was wrong."""
        self._process.wait()
        with self._stats.open() as opened:
            last = list(csv.DictReader(opened, delimiter=";"))[-1]
        succeeded, failed = int(last["SuccessfulCall(C)"]), int(last["FailedCall(C)"])
        print(
            f"{self._name}: {succeeded} of {self._calls} at {self._rate:g}/s, {failed} failed, "
            f"{last['Retransmissions(C)']} sent again",
            flush=True,
        )
        missing = self._calls - succeeded
        return [f"{self._name}: {missing} did not succeed"] if missing or self._process.returncode else []


def describe(what: str, delays: Sequence[float], missing: int, limit_ms: float | None = None) -> list[str]:
    """Print the distribution of delays, and return what was wrong with it."""
    if not delays:
        return [f"{what}: none was seen"]

    def at(share: float) -> float:
        return 1000 * delays[math.ceil(share * len(delays)) - 1]

    within = ""
    if limit_ms is not None:
        below = sum(1000 * delay < limit_ms for delay in delays)
        within = f"; {100 * below / len(delays):.1f} % below {limit_ms:g} ms"
    print(
        f"{what}: p50 {at(0.5):.2f}, p95 {at(0.95):.2f}, p99 {at(0.99):.2f}, max {at(1):.2f} ms{within}, "
        f"{missing} without one",
        flush=True,
    )
    faults = [f"{what}: {missing} INVITEs had none"] if missing else []
    if limit_ms is not None and at(0.95) >= limit_ms:
        faults.append(f"{what}: p95 is {at(0.95):.2f} ms, not below {limit_ms:g} ms")
    return faults


def seen_all(capture: SipCapture) -> list[str]:
    return [f"tcpdump lost {capture.dropped} packets"] if capture.dropped else []


def rate(calls: int, per_second: float, folder: Path, *, realtime: bool) -> list[str]:
    with Server(folder, realtime=realtime) as server:
        Sipp("call", max(20, calls // 20), per_second / 4, folder).finish()  # what runs first is slow
        spent = server.cpu_s()
        with capturing(folder / "rate.pcap", SIP_PORT, OTHER_CORE) as capture:
            faults = Sipp("call", calls, per_second, folder).finish()
        print(f"{1000 * (server.cpu_s() - spent) / calls:.2f} ms of CPU a call")
    return faults + describe("INVITE to 100", *capture.delays(100), TO_100_MS) + seen_all(capture)


def accept(calls: int, per_second: float, folder: Path) -> list[str]:
    sipp = interop()
    with capturing(folder / "accept.pcap", sipp.SIP_PORT, OTHER_CORE) as capture:
        faults = asyncio.run(sipp.run_case("accept", "udp", calls, int(per_second), folder, NODE_CORE))
    faults += describe("INVITE to 100", *capture.delays(100), TO_100_MS)
    faults += describe("INVITE to 200, by webhook and accept", *capture.delays(200))
    return faults + seen_all(capture)


def loss(calls: int, per_second: float, folder: Path) -> list[str]:
    return interop().lossy_case(folder, calls, int(per_second))


def memory(calls: int, per_second: float, folder: Path, *, realtime: bool) -> list[str]:
    tenth = calls // 10
    shares = {"call": calls - 2 * tenth, "never acknowledged": tenth, "cancelled": tenth}
    with Server(folder, realtime=realtime) as server:
        Sipp("call", max(20, calls // 100), per_second, folder).finish()
        running = [Sipp(name, count, per_second * count / calls, folder) for name, count in shares.items()]
        samples = []
        while any(one.is_running for one in running):
            samples.append(server.memory())
            time.sleep(1)
        faults = [fault for one in running for fault in one.finish()]
        time.sleep(FORGOTTEN_S)
        left, held = server.memory(), server.held()
    half = len(samples) // 2
    (first, first_fds), (second, second_fds) = (
        (max(sample[0] for sample in part), max(sample[1] for sample in part))
        for part in (samples[:half], samples[half:])
    )
    print(
        f"peak of the first half {first:.0f} MB and {first_fds} descriptors, of the second {second:.0f} MB and "
        f"{second_fds}; {FORGOTTEN_S} s later {left[0]:.0f} MB and {left[1]}",
        flush=True,
    )
    print("left of calls:", json.dumps(held), flush=True)
    if second > first * (1 + GROWTH):
        faults.append("memory grew")
    if second_fds > first_fds * (1 + GROWTH):
        faults.append("descriptors grew")
    return faults + [f"{what}: {count} left" for what, count in held.items() if count]


def interop():  # type: ignore[no-untyped-def]
    """Return the interop test of SIPp, whose app and scenario are used here."""
    sys.path.insert(0, str(INTEROP))
    import sipp

    return sipp


KINDS = {
    "rate": (rate, 6000, 200),
    "accept": (accept, 1500, 50),
    "loss": (loss, 1000, 40),
    "memory": (memory, 20_000, 100),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=KINDS)
    parser.add_argument("--calls", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--check", action="store_true", help="end with 1 when a target is missed")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="rate and memory on a machine with other work: the node's main thread in SCHED_RR, SIPp at niceness -10",
    )
    arguments = parser.parse_args()
    if not shutil.which("sipp"):
        raise SystemExit("sipp is missing: install Debian's sip-tester")
    os.sched_setaffinity(0, {OTHER_CORE})
    options = {}
    if arguments.what in ("rate", "memory"):
        options["realtime"] = arguments.realtime
    if arguments.realtime:
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    folder = Path(tempfile.mkdtemp(prefix="offhook-load-"))
    measure, calls, per_second = KINDS[arguments.what]
    faults = measure(arguments.calls or calls, arguments.rate or per_second, folder, **options)
    if faults:
        print("\n".join(faults), f"logs are in {folder}", sep="\n")
        raise SystemExit(1 if arguments.check else 0)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
