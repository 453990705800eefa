"""
`offhook serve` registers with Kamailio, which then sends calls by the registration.

Run by `make interop`. Kamailio's `registrar` asks for a password (`pv_auth_check`, MD5), keeps the Contact, and routes
INVITEs for the user to it; a telephone calls the user there. Once over UDP and once over TCP, where the call comes by
the connection that Offhook opened. At the end of the node the Contact is gone.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from testbed import DeveloperApp, Node, Phone  # noqa: E402
from testbed.script import SCRIPT  # noqa: E402

HOST = "127.0.0.3"
USER, PASSWORD = "alice", "opensesame"
CONFIG = """
children=2
log_stderror=yes
debug=2
auto_aliases=no
listen=udp:@HOST@:@PORT@
listen=tcp:@HOST@:@PORT@
tcp_connection_lifetime=600
tcp_accept_no_cl=yes
loadmodule "kex.so"
loadmodule "corex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
loadmodule "nathelper.so"
modparam("usrloc", "db_mode", 0)
modparam("registrar", "min_expires", 120)
modparam("registrar", "received_avp", "$avp(received)")
modparam("nathelper", "received_avp", "$avp(received)")
request_route {
  if (is_method("REGISTER")) {
    if (!pv_auth_check("$td", "@PASSWORD@", "0", "0")) { www_challenge("$td", "1"); exit; }
    # The source is where calls must go: on TCP, the connection that is open.
    fix_nated_register();
    save("location");
    xlog("L_NOTICE", "saved $ct expires $hdr(Expires)\\n");
    exit;
  }
  if (has_totag()) {
    if (loose_route() || is_method("ACK")) { t_relay(); exit; }
    sl_send_reply("404", "Not here");
    exit;
  }
  if (is_method("CANCEL")) { if (t_check_trans()) t_relay(); exit; }
  if (!is_method("INVITE")) { sl_send_reply("405", "Not allowed"); exit; }
  record_route();
  if (!lookup("location")) { sl_send_reply("480", "Nobody is registered"); exit; }
  t_relay();
}
"""


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Carrier:
    """A running Kamailio. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        text = (
            CONFIG.replace("@HOST@", HOST).replace("@PORT@", str(self.port)).replace("@PASSWORD@", PASSWORD)
        )
        (folder / "kamailio.cfg").write_text(text)

    def __enter__(self) -> Carrier:
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["kamailio", "-DD", "-E", "-m", "32", "-M", "4", "-f", str(self.folder / "kamailio.cfg"),
                 "-Y", str(self.folder), "-P", str(self.folder / "pid")],
                stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return self
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        self.__exit__()
        raise SystemExit(f"Kamailio did not start:\n{self.log()[-3000:]}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


class AtCarrier:
    """Stands in for the node where a phone dials: the carrier's address."""

    def __init__(self, node: Node, carrier: Carrier) -> None:
        self.sip = {"udp": (HOST, carrier.port)}
        self.phone_ports = node.phone_ports


async def run(transport: str, folder: Path) -> list[tuple[str, bool]]:
    seen: list[tuple[str, bool]] = []
    os.environ["INTEROP_REGISTER_PASSWORD"] = PASSWORD
    with Carrier(folder) as carrier:
        registrar = f"sip:{HOST}:{carrier.port};transport={transport}"
        register = (
            f'{{ registrar = "{registrar}", user = "{USER}", password_env = "INTEROP_REGISTER_PASSWORD", '
        )
        trunk = f'name = "carrier"\nregister = {register}expires_s = 60 }}'
        (folder / "node").mkdir()
        with Node(folder / "node", script=SCRIPT, trunk=trunk) as node:
            line = await node.logged("sip.registration")
            seen.append((f"{transport}: registered by digest", line["state"] == "registered"))
            seen.append((f"{transport}: 423 raised 60 s to 120 s", "for 120 s" in line["text"]))
            async with DeveloperApp(node) as app, Phone(AtCarrier(node, carrier)) as phone:
                call = await phone.dial(USER)
                incoming = await app.incoming()
                await app.accept(incoming.call_id)
                await call.answered()
                described = await node.describe(app.seat, incoming.call_id)
                came_by = (described["transport"], described["remote"])
                seen.append(
                    (
                        f"{transport}: the call came by {came_by}",
                        came_by == (transport, f"{HOST}:{carrier.port}"),
                    )
                )
                await app.client.realtime.calls.hangup(incoming.call_id)
                await call.ended()
                seen.append((f"{transport}: hung up through Kamailio", len(call.received("BYE")) == 1))
        async with Phone(AtCarrier(node, carrier)) as phone:
            gone = await (await phone.dial(USER)).refused()
            seen.append((f"{transport}: nobody is registered at the end: {gone.status}", gone.status == 480))
    return seen


def main() -> None:
    if not shutil.which("kamailio"):
        raise SystemExit("kamailio is missing: install Debian's kamailio")
    folder = Path(tempfile.mkdtemp(prefix="offhook-register-"))
    seen: list[tuple[str, bool]] = []
    for transport in ("udp", "tcp"):
        (folder / transport).mkdir()
        seen += asyncio.run(run(transport, folder / transport))
    for what, right in seen:
        print(f"{'ok  ' if right else 'FAIL'} {what}", flush=True)
    if not all(right for _, right in seen):
        raise SystemExit(f"logs are in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
