"""
Run the interop scripts, two at a time: `python tests/interop/run.py [NAME ...]`, without names all of them.

Most of their time is waiting, for session timers, timeouts and ringing phones. Each ends by itself and has ports or a
network namespace of its own; its output is printed whole when it ends. The exit status is 1 when one of them failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from testbed import scripts  # noqa: E402

NAMES = (
    "pjsua", "overload", "scanners", "kamailio", "sipp", "sipp_offers", "baresip", "pjsua_digest", "register", "werift",
    "prometheus",
)  # fmt: skip
"The longest first."

if __name__ == "__main__":
    commands = {name: [sys.executable, str(HERE / f"{name}.py")] for name in NAMES}
    sys.exit(scripts.main(__doc__ or "", commands, at_once=2, limit_s=300))
