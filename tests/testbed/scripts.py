"""Running scripts that each end by themselves, some at a time, and telling of each how it went."""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

__all__ = ["main", "run"]


def run(name: str, command: Sequence[str], limit_s: float) -> str:
    """Run one to its end and print what it said. Returns that once more if not all was well, else an empty text."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
        )
        said, outcome = done.stdout, "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
    except subprocess.TimeoutExpired as late:
        said, outcome = late.stdout or b"", f"FAILED (no end within {limit_s} s)"
    text = said.decode("utf-8", "replace").rstrip()
    said_of_it = f"\n-- {name}\n{text}\n-- {name}: {outcome}, {time.monotonic() - began:.0f} s"
    print(said_of_it, flush=True)
    return "" if outcome == "ok" else said_of_it


def main(description: str, scripts: Mapping[str, Sequence[str]], *, at_once: int, limit_s: float) -> int:
    """
    Take names from the command line and run those scripts, without names all of them.

    `scripts` holds each one's command by its name, the longest first, so that none of them is left alone at the end.
    What fails beside another must do well by itself. Returns the exit status: 1 when one of them failed.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(scripts))
    parser.add_argument("--at-once", type=int, default=at_once)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in scripts]:
        parser.error(f"no script {', '.join(unknown)}; there are {', '.join(scripts)}")
    names = arguments.names or list(scripts)
    began = time.monotonic()
    with ThreadPoolExecutor(arguments.at_once) as pool:
        outcomes = dict(
            zip(names, pool.map(lambda name: run(name, scripts[name], limit_s), names), strict=True)
        )
    failed = {name: said for name, said in outcomes.items() if said}
    # Who reads a log from its end finds the reason there.
    print("\n".join(failed.values()))
    if failed and arguments.at_once > 1:
        print(f"\nthese again, one at a time: {', '.join(failed)}", flush=True)
        failed = {name: said for name in failed if (said := run(name, scripts[name], limit_s))}
    print(
        f"\n{len(names) - len(failed)} of {len(names)} well in {time.monotonic() - began:.0f} s"
        + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0
