"""
SIPp against `offhook serve` on one core: how many calls a second, and whether memory and descriptors stay.

`python bench/sip_load.py rate` sets up and ends 200 calls/s of a project whose fallback accepts at once. `memory` makes
20,000 calls, of which 2,000 are never acknowledged and 2,000 are cancelled, and compares the process before and after
(some eight minutes). `--calls` and `--rate` make either smaller. Needs Debian's sip-tester.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
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
from pathlib import Path

from offhook.cli.demo.site import free_ports, free_sip_ports

CALL = Path(__file__).parents[1] / "tests" / "interop" / "uac_call.xml"
(SIP_PORT, _), (HTTP_PORT,) = free_sip_ports(), free_ports(1)
CORE = 0
FORGOTTEN_S = 45
"After so long nothing of a call is kept but its timeline: 32 s for a 200 that nobody acknowledges, and its BYE."
WARM_S = 45
"Of calls at full rate: until as many are kept and half forgotten as ever will be."
GROWTH = 0.10
"What memory may grow by over 20,000 calls."

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
    text = CALL.read_text().replace('<pause milliseconds="1000"/>', '<pause milliseconds="100"/>')
    invite, answered = text.split('  <recv response="100" optional="true" rtd="1"/>')
    no_ack = answered[: answered.index("  <send>")]
    return {
        "call": text,
        "never acknowledged": f'{invite}  <recv response="100" optional="true" rtd="1"/>{no_ack}</scenario>\n',
        "cancelled": invite.replace("proj_sipp", "proj_ring").replace(' start_rtd="1"', "") + CANCEL,
    }


class Server:
    """`offhook serve` on one core. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "offhook.toml").write_text(CONFIG)

    def __enter__(self) -> Server:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(CORE), sys.executable, "-m", "offhook", "serve", "--log-level", "WARNING",
                 "--config", str(self._folder / "offhook.toml")],
                stdout=log, stderr=log, env=os.environ | {"OFFHOOK_SERVER__DATA_DIR": str(self._folder / "data")},
            )  # fmt: skip
        for _ in range(300):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}/readyz", timeout=2)
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit(f"offhook serve did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(40)

    def measure(self) -> tuple[float, int]:
        """Return resident memory in MB, and open descriptors."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) / 1024, len(os.listdir(f"/proc/{self._process.pid}/fd"))


def sipp(name: str, text: str, calls: int, rate: float, folder: Path) -> list[str]:
    """Make calls; print what came of them, and return what was wrong."""
    file = folder / f"{name.replace(' ', '_')}.xml"
    file.write_text(text)
    stats = file.with_suffix(".csv")
    stats.unlink(missing_ok=True)
    ran = subprocess.run(
        ["sipp", f"127.0.0.1:{SIP_PORT}", "-sf", str(file), "-i", "127.0.0.1", "-t", "u1", "-m", str(calls),
         "-r", str(rate), "-l", "5000", "-timeout", "400s", "-nostdin", "-trace_stat", "-stf", str(stats),
         "-fd", "1", "-max_retrans", "10"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    with stats.open() as opened:
        last = list(csv.DictReader(opened, delimiter=";"))[-1]
    succeeded, failed = int(last["SuccessfulCall(C)"]), int(last["FailedCall(C)"])
    to_100 = {
        name.removeprefix("ResponseTimeRepartition1_"): count
        for name, count in last.items()
        if name and name.startswith("ResponseTimeRepartition1_") and count != "0"
    }
    print(
        f"{name}: {succeeded} of {calls} at {rate:g}/s, {failed} failed, {last['Retransmissions(C)']} sent again, "
        f"INVITE to 100 in ms: {json.dumps(to_100)}",
        flush=True,
    )
    return (
        [] if succeeded == calls and ran.returncode == 0 else [f"{name}: {calls - succeeded} did not succeed"]
    )


def rate(calls: int, per_second: float, folder: Path) -> list[str]:
    with Server(folder):
        ways = scenarios()
        sipp("call", ways["call"], max(20, calls // 20), per_second / 4, folder)  # what runs first is slow
        return sipp("call", ways["call"], calls, per_second, folder)


def memory(calls: int, per_second: float, folder: Path) -> list[str]:
    ways = scenarios()
    tenth = calls // 10
    shares = {"call": calls - 2 * tenth, "never acknowledged": tenth, "cancelled": tenth}
    with Server(folder) as server:
        # 1,000 ended calls are kept, and those of the last 32 s beside them: the second time is the peak.
        for _ in range(2):
            for name, share in {"call": 1.0, "never acknowledged": 0.1, "cancelled": 0.1}.items():
                count = int(share * max(1500, WARM_S * per_second))
                sipp(name, ways[name], count, per_second, folder)
            time.sleep(FORGOTTEN_S)
        before = server.measure()
        faults = []
        for name, count in shares.items():
            faults += sipp(name, ways[name], count, per_second, folder)
        time.sleep(FORGOTTEN_S)
        after = server.measure()
    print(
        f"memory {before[0]:.0f} MB, then {after[0]:.0f} MB; descriptors {before[1]}, then {after[1]}",
        flush=True,
    )
    if after[0] > before[0] * (1 + GROWTH):
        faults.append("memory grew")
    if after[1] > before[1]:
        faults.append("descriptors were not closed")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("rate", "memory"))
    parser.add_argument("--calls", type=int)
    parser.add_argument("--rate", type=float)
    arguments = parser.parse_args()
    if not shutil.which("sipp"):
        raise SystemExit("sipp is missing: install Debian's sip-tester")
    folder = Path(tempfile.mkdtemp(prefix="offhook-load-"))
    if arguments.what == "rate":
        faults = rate(arguments.calls or 6000, arguments.rate or 200, folder)
    else:
        faults = memory(arguments.calls or 20_000, arguments.rate or 100, folder)
    if faults:
        print("\n".join(faults), f"logs are in {folder}", sep="\n")
        raise SystemExit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
