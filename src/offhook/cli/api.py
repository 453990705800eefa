"""The REST API as the other commands use it: whom to ask, with which key, and errors said in one line."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote, urlencode

import typer

__all__ = ["Api", "ApiError", "DataDir", "Key", "Url", "connect", "fail", "message_of"]

DEFAULT_URL = "http://127.0.0.1:8080"
_PAGE = 100
"The most calls that the API gives at one time."
_REFUSED = 1000
"All sources that a node keeps."
_REMEDIES = {
    401: " Give one of the project's api_keys with --key or OFFHOOK_API_KEY.",
    404: " (`offhook calls` lists those that this key can see)",
}

Url = Annotated[str, typer.Option(envvar="OFFHOOK_URL", help="The node's address.")]
Key = Annotated[
    str, typer.Option(envvar="OFFHOOK_API_KEY", help="A project's key. Default: the generated project's.")
]
DataDir = Annotated[
    Path, typer.Option(help="Where a node without configuration keeps its generated project.")
]


class ApiError(Exception):
    """The node could not be asked, or refused; the message says why and what would do."""


@dataclass(frozen=True, slots=True)
class Api:
    """A node and a key for it. All methods raise `ApiError`."""

    url: str
    key: str

    def calls(self, limit: int) -> list[dict[str, Any]]:
        """Return so many of the project's calls, newest first."""
        found: list[dict[str, Any]] = []
        after = ""
        while len(found) < limit:
            page = self._get(f"/v1/realtime/calls?limit={min(limit - len(found), _PAGE)}{after}")
            found += page.get("data", [])
            if not page.get("has_more"):
                break
            after = f"&after={page.get('last_id')}"
        return found

    def search(self, name: str, value: str, limit: int) -> list[dict[str, Any]]:
        """Return so many calls at most for which the list's query `name` holds, newest first."""
        query = urlencode({name: value, "limit": limit})
        found: list[dict[str, Any]] = self._get(f"/v1/realtime/calls?{query}").get("data", [])
        return found

    def version(self) -> str:
        """Return the node's version; empty when it does not say."""
        try:
            return str(self._get("/openapi.json")["info"]["version"])
        except (ApiError, LookupError, TypeError):
            return ""

    def refused_sources(self, limit: int) -> list[dict[str, Any]]:
        """Return who was turned away before a call was made of it, the latest first."""
        path = f"/v1/realtime/refused_sources?limit={min(limit, _REFUSED)}"
        data: list[dict[str, Any]] = self._get(path).get("data", [])
        return data

    def call(self, call_id: str) -> dict[str, Any]:
        return self._get(f"/v1/realtime/calls/{quote(call_id, safe='')}")

    def timeline(self, call_id: str) -> dict[str, Any]:
        return self._get(f"/v1/realtime/calls/{quote(call_id, safe='')}/timeline")

    def write_capture(self, call_id: str, target: Path, *, rtp: bool, keys: bool) -> str:
        """Have the node make a capture, and return what is not in it. Raises `OSError` for the file, too."""
        import httpx2

        query = urlencode({"rtp": str(rtp).lower(), "keys": str(keys).lower()})
        path = f"/v1/realtime/calls/{quote(call_id, safe='')}/pcap?{query}"
        headers = {"Authorization": f"Bearer {self.key}"}
        try:
            with httpx2.stream("GET", self.url.rstrip("/") + path, headers=headers, timeout=30) as answer:
                if answer.status_code != 200:
                    answer.read()
                    said = message_of(answer.text)
                    raise ApiError(f"{said}{_REMEDIES.get(answer.status_code, '')}")
                # What was said is in it, and maybe keys: it is this user's alone.
                with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        os.fchmod(file.fileno(), 0o600)
                    for piece in answer.iter_bytes():
                        file.write(piece)
                return str(answer.headers.get("x-offhook-not-included", ""))
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ApiError(f"{self.url} does not answer ({error})") from None

    def _get(self, path: str) -> dict[str, Any]:
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the JSON that a request is answered with."""
        import httpx2

        url, headers = self.url.rstrip("/") + path, {"Authorization": f"Bearer {self.key}"}
        try:
            if method == "GET":
                answer = httpx2.get(url, headers=headers, timeout=10)
            else:
                content = None if body is None else json.dumps(body)
                answer = httpx2.request(method, url, headers=headers, content=content, timeout=15)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ApiError(
                f"{self.url} does not answer ({error}); is `offhook serve` running? (--url)"
            ) from None
        if answer.status_code != 200:
            about_calls = answer.status_code != 404 or "/realtime/calls" in path
            remedy = _REMEDIES.get(answer.status_code, "") if about_calls else ""
            raise ApiError(f"{path}: {answer.status_code}: {message_of(answer.text)}{remedy}")
        try:
            found: dict[str, Any] = answer.json()
        except ValueError:
            raise ApiError(f"{self.url} is no Offhook node: {path} gave no JSON") from None
        return found


def connect(url: str, key: str, data_dir: Path) -> Api:
    """Return the node to ask, or end the command with the reason."""
    if not key:
        try:
            key = json.loads((data_dir / "project.json").read_text())["api_keys"][0]
        except (OSError, ValueError, LookupError):
            fail(
                f"no key: {data_dir / 'project.json'} holds none. Run this where `offhook serve` runs, "
                "or give --data-dir, or --key (OFFHOOK_API_KEY) for a project of your configuration"
            )
    return Api(url, key)


def fail(message: str) -> NoReturn:
    """End the command with a reason."""
    print(f"offhook: {message}", file=sys.stderr)
    raise typer.Exit(1)


def message_of(text: str) -> str:
    """Return what an error's body says."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return text[:200]
