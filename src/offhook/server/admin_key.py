"""The key of whoever runs this node: it opens the pages and `/admin/api`, which show all projects."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from offhook import ids

__all__ = ["AdminKey", "find_admin_key"]


class AdminKey:
    """A key to compare with. It is in no `repr`, so it is in no log."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def matches(self, given: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self._key, given.encode("utf-8", "surrogatepass"))

    def derive(self, purpose: str) -> bytes:
        """Return a secret for one purpose; another key gives another, which ends what was signed with the old one."""
        return hmac.new(self._key, purpose.encode(), hashlib.sha256).digest()


def find_admin_key(configured: str, data_dir: Path) -> tuple[str, Path | None, bool]:
    """
    Return the key, the file that keeps it (`None`: the configuration does), and whether it was made just now.

    Raises `OSError` when the file cannot be read or made, and `ValueError` when it holds no key.
    """
    if configured:
        return configured, None, False
    path = data_dir / "admin_key"
    if path.is_file():
        if not (key := path.read_text().strip()):
            raise ValueError(f"{path} is empty; remove it to have a new admin key made")
        return key, path, False
    key = ids.admin_key()
    data_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key + "\n")
    return key, path, True
