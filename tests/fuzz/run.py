"""
Atheris on every parser: `python tests/fuzz/run.py --seconds 600 [NAME ...]`. Needs the extra `fuzz`.

Each target runs in a process of its own with its seeds, its dictionary, a second for each input and a bound on memory.
What breaks one is left in the current folder as `crash-*`, `timeout-*` or `oom-*`, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from targets import TARGETS, Target

ONE = Path(__file__).with_name("one.py")
MAX_BYTES = 8192
MEMORY_MB = 600
"Python, the package and its tables are some 200 of it."
_STATUS = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+).* rss: (\d+)Mb")


def watch(target: Target, seconds: int) -> bool:
    """Fuzz in a process of its own, print what came of it, and tell whether all went well."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(target.seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            "-timeout=1",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-max_len={MAX_BYTES}",
            "-print_final_stats=1",
        ]
        if target.words:
            words = Path(folder) / "words"
            words.write_text("".join(f'"{_escape(word)}"\n' for word in target.words))
            options.append(f"-dict={words}")
        command = [sys.executable, str(ONE), target.name, *options, str(corpus)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=seconds + 120, check=False
            )
        except subprocess.TimeoutExpired:
            print(f"{target.name:18} hung")
            return False
    seen = _STATUS.findall(done.stderr)
    runs, coverage, memory = seen[-1] if seen else ("0", "0", "0")
    outcome = "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
    print(f"{target.name:18} {outcome:12} {runs:>9} inputs, coverage {coverage}, {memory} MB", flush=True)
    if done.returncode:
        print(done.stdout[-4000:])
        print(
            "\n".join(
                line for line in done.stderr.splitlines() if line.startswith(("==", "SUMMARY", "artifact"))
            )
        )
    return done.returncode == 0 and int(runs) > 0


def _escape(word: bytes) -> str:
    return "".join(chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\x{c:02x}" for c in word)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(TARGETS)}; all without any")
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    given = parser.parse_args()
    results = [watch(TARGETS[name], given.seconds) for name in given.names or TARGETS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
