"""The admin API as commands use it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .api import ApiError, fail, message_of

__all__ = ["AdminApi", "AdminKey", "connect_as_admin"]

AdminKey = Annotated[
    str,
    typer.Option(
        envvar="OFFHOOK_SERVER__ADMIN_KEY",
        help="The node's admin key. Default: the file admin_key of its data dir.",
    ),
]
_REMEDIES = {401: " Give the admin key with --admin-key or OFFHOOK_SERVER__ADMIN_KEY."}


@dataclass(frozen=True, slots=True)
class AdminApi:
    """A node and its admin key."""

    url: str
    key: str

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what `/admin/api` answers. Raises `ApiError`."""
        import httpx2

        try:
            answer = httpx2.request(
                method,
                f"{self.url.rstrip('/')}/admin/api{path}",
                headers={"Authorization": f"Bearer {self.key}"},
                content=None if body is None else json.dumps(body),
                timeout=15,
            )
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ApiError(
                f"{self.url} does not answer ({error}); is `offhook serve` running? (--url)"
            ) from None
        if answer.status_code != 200:
            remedy = _REMEDIES.get(answer.status_code, "")
            raise ApiError(f"{message_of(answer.text)}{remedy}")
        try:
            found: dict[str, Any] = answer.json()
        except ValueError:
            raise ApiError(f"{self.url} is no Offhook node: {path} gave no JSON") from None
        return found


def connect_as_admin(url: str, key: str, data_dir: Path) -> AdminApi:
    """Return the node to ask, or end the command with the reason."""
    if not key:
        try:
            key = (data_dir / "admin_key").read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no text"
            fail(
                f"no admin key: {data_dir / 'admin_key'}: {reason}. Run this where `offhook serve` runs, or give "
                "--data-dir, or --admin-key (OFFHOOK_SERVER__ADMIN_KEY)"
            )
    return AdminApi(url, key)
