"""Virtual environments for clients whose packages Offhook's own environment must not hold."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["virtual_environment"]

_ROOT = Path(__file__).resolve().parents[2] / ".venv-compat"


def virtual_environment(name: str, requirements: Path) -> Path:
    """
    Return the Python of an environment with these requirements, made unless it is there.

    What was installed is noted in the environment, so that other requirements make it anew.
    """
    folder = _ROOT / name
    python, note = folder / "bin" / "python", folder / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if note.exists() and note.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"  making {folder.relative_to(_ROOT.parent)} ...", flush=True)
    venv.create(folder, with_pip=True)
    # Most of what is installed is never imported, so nothing is compiled ahead.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([*pip, "--requirement", str(requirements)], check=True)
    note.write_text(wanted)
    return python
