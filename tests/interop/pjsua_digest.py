"""
PJSIP calls a trunk that is known by its password, and answers the challenge by SHA-256 (RFC 8760).

Run by `make interop`, in the environment of its own that `pjsua.py` makes.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from pathlib import Path

import pjsua
import scanners

PEER = """
import os, sys
import pjsua2 as pj
endpoint, config = pj.Endpoint(), pj.EpConfig()
endpoint.libCreate()
config.logConfig.level = config.logConfig.consoleLevel = 5
endpoint.libInit(config)
transport = pj.TransportConfig()
transport.port, transport.boundAddress = 0, "127.0.0.1"
endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
endpoint.libStart()
endpoint.audDevManager().setNullDev()
account, settings = pj.Account(), pj.AccountConfig()
settings.idUri = "sip:edge@127.0.0.1"
settings.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", "edge", 0, sys.argv[2]))
account.create(settings)
class Call(pj.Call):
    def onCallState(self, _):
        print("STATE", self.getInfo().stateText, self.getInfo().lastStatusCode, flush=True)
call = Call(account)
call.makeCall(sys.argv[1], pj.CallOpParam(True))
for _ in range(30):
    endpoint.libHandleEvents(100)
os._exit(0)
"""


async def run(folder: Path, python: Path) -> None:
    script = folder / "peer.py"
    script.write_text(PEER)
    trunk = scanners.BY_PASSWORD.format(algorithms='["SHA-256", "MD5"]')
    async with scanners.listening_for(folder, "pjsua-digest", scanners.ANSWERS, trunk) as node:
        for password, answered in (("s3cret", True), ("wrong", False)):
            uri = f"sip:proj_100@127.0.0.1:{node.sip}"
            _, output = await scanners.run(str(python), str(script), uri, password)
            confirmed = "STATE CONFIRMED 200" in output
            scanners.check(
                confirmed is answered, f"PJSIP with the password {password!r}: answered {confirmed}"
            )
            first = re.search(r"Authorization: Digest .*?algorithm=([\w-]+)", output)
            scanners.check(first is not None and first[1] == "SHA-256", "it answers by SHA-256 first")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="offhook-pjsua-digest-") as folder:
        asyncio.run(run(Path(folder), pjsua.make_environment()))
    if scanners.faults:
        raise SystemExit("\n".join(scanners.faults))


if __name__ == "__main__":
    sys.exit(main())
