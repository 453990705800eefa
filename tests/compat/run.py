"""
Run clients that nobody here wrote against a node, two at a time: `python tests/compat/run.py [NAME ...]`, without names
all of them.

Each client is installed as it is published, in an environment of its own that is kept and used again: those of pip
under `.venv-compat/`, those of npm in its folder's `node_modules`. Each case starts a node of its own, says its
versions and what it saw, and ends by itself. The exit status is 1 when one of them failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from testbed import scripts  # noqa: E402

CASES = {
    "livekit": [sys.executable, str(HERE / "livekit" / "case.py")],
    "livekit-js": [sys.executable, str(HERE / "livekit-js" / "case.py")],
    "agents": [sys.executable, str(HERE / "agents" / "case.py")],
    "agents065": [sys.executable, str(HERE / "agents" / "case.py"), "agents065"],
    "pipecat": [sys.executable, str(HERE / "pipecat" / "case.py")],
    "agents-js": [sys.executable, str(HERE / "agents-js" / "case.py")],
    "node": [sys.executable, str(HERE / "node" / "case.py")],
}
"""Each client's command, the longest first. What stands in a `case.py` runs with Offhook's own Python."""

if __name__ == "__main__":
    sys.exit(scripts.main(__doc__ or "", CASES, at_once=2, limit_s=480))
