"""Styles, scripts and pictures of the pages: few, small, and part of the package, so they are kept in memory."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError

__all__ = ["StaticFiles"]

FOLDER = Path(__file__).parent.parent / "static"
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


class StaticFiles:
    """
    Answers `/static/...`. `url` gives an address that changes with the content, so that browsers need not ask twice.

    Only what was in the folder at start is served: no path leads anywhere else.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self._versions = {
            name: hashlib.sha256(content).hexdigest()[:12] for name, content in self._files.items()
        }

    def url(self, name: str) -> str:
        """Raises `KeyError` for a file that is not there."""
        return f"/static/{name}?v={self._versions[name]}"

    async def answer(self, request: Request) -> Response:
        name = request.path_params["name"]
        if (content := self._files.get(name)) is None:
            raise CallError(404, f"Unknown request URL: GET /static/{name}.", code="unknown_url")
        kept = request.query_params.get("v") == self._versions[name]
        kind = _TYPES.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "text/plain"
        return Response(
            content,
            media_type=kind,
            headers={
                "Cache-Control": "public, max-age=31536000, immutable" if kept else "no-cache",
                "X-Content-Type-Options": "nosniff",
            },
        )
