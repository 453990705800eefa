"""
Run the interop scripts, two at a time: `python tests/interop/run.py [NAME ...]`, without names all of them.

Most of their time is waiting, for session timers, timeouts and ringing phones. Each ends by itself and has ports or a
network namespace of its own; its output is printed whole when it ends. The exit status is 1 when one of them failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = (
    "pjsua", "overload", "scanners", "kamailio", "sipp", "sipp_offers", "baresip", "pjsua_digest", "register", "werift",
    "prometheus",
)  # fmt: skip
"The longest first, so that none of them is left alone at the end."
AT_ONCE = 2
LIMIT_S = 300


def run(name: str) -> str:
    """Run one to its end and print what it said. Returns that once more if not all was well, else an empty text."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / f"{name}.py")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
            check=False,
        )
        said, outcome = done.stdout, "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
    except subprocess.TimeoutExpired as late:
        said, outcome = late.stdout or b"", f"FAILED (no end within {LIMIT_S} s)"
    text = said.decode("utf-8", "replace").rstrip()
    said_of_it = f"\n-- {name}\n{text}\n-- {name}: {outcome}, {time.monotonic() - began:.0f} s"
    print(said_of_it, flush=True)
    return "" if outcome == "ok" else said_of_it


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCRIPTS))
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in SCRIPTS]:
        parser.error(f"no script {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    names = arguments.names or SCRIPTS
    with ThreadPoolExecutor(arguments.at_once) as pool:
        outcomes = dict(zip(names, pool.map(run, names), strict=True))
    failed = {name: said for name, said in outcomes.items() if said}
    # Who reads a log from its end finds the reason there.
    print("\n".join(failed.values()))
    print(
        f"\n{len(names) - len(failed)} of {len(names)} well"
        + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
