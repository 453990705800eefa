"""Programs for Node, each with the packages that the `package-lock.json` in its folder names."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import time
from pathlib import Path

__all__ = ["NODE_MAJOR", "install", "node", "version"]

NODE_MAJOR = 22
"openai-node wants this one (with 18 it cannot verify a webhook); Debian's may be older."


def install(folder: Path) -> None:
    """
    Have `npm ci` make the folder's `node_modules`, unless they are what its lock file says already.

    No script of a package is run. Raises `SystemExit` with npm's own words when it fails.
    """
    lock, stamp = folder / "package-lock.json", folder / "node_modules" / ".installed"
    with lock.open("rb") as one_at_a_time:  # two cases may want the same Node
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
            return
        if shutil.which("npm") is None:
            raise SystemExit("npm is missing (Debian: nodejs, npm)")
        began = time.monotonic()
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=240, check=False)
        if done.returncode:
            raise SystemExit(f"npm ci in {folder.name}: {(done.stdout + done.stderr).decode()[-2000:]}")
        stamp.write_bytes(lock.read_bytes())
        print(f"  npm ci in {folder.name} took {time.monotonic() - began:.0f} s", flush=True)


def node(folder: Path) -> str:
    """Return a Node that is new enough: the system's, or else the one that `folder`'s lock file names."""
    if (found := shutil.which("node")) and _version(found)[0] >= NODE_MAJOR:
        return found
    install(folder)
    found = next((str(path) for path in folder.glob("node_modules/node-*/bin/node")), None)
    if found is None:
        raise SystemExit(f"there is no Node {NODE_MAJOR} for this machine in {folder.name}/package.json")
    return found


def version(folder: Path, package: str) -> str:
    """Return which version of a package stands in the folder's `node_modules`."""
    return str(json.loads((folder / "node_modules" / package / "package.json").read_text())["version"])


def _version(path: str) -> list[int]:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    return [int(part) for part in said.strip().removeprefix("v").split(".")]
