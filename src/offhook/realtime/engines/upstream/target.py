"""A Realtime API that can be a call's voice, and how it wants to be opened (API rows A01 to A05)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from .failover import SILENCE_S

__all__ = ["Kind", "Upstream", "guess_kind", "handshake"]

Kind = Literal["openai", "azure", "offhook", "other"]
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


@dataclass(frozen=True, slots=True)
class Upstream:
    """One `[upstreams.NAME]` table."""

    name: str
    url: str
    key: str = field(default="", repr=False)
    kind: Kind = "other"
    model: str = ""
    "Goes up instead of the model that the app asked for."
    deployment: str = ""
    "Azure's word for the model."
    api_version: str = ""
    "Azure: ask in the older form, with `api-version` and `deployment`."
    silence_s: float = SILENCE_S
    "How long it may keep a call waiting before the next one is tried."
    audio: Literal["auto", "pcm"] = "auto"
    "`auto`: the caller's G.711 as it is, where the upstream takes it. `pcm`: 24 kHz always."
    ca_file: str = ""
    "PEM: trusted besides the system's CAs."


def guess_kind(url: str) -> Kind:
    """Return whose API an address is, by its host."""
    host = urlsplit(url).hostname or ""
    if host.endswith(".azure.com"):
        return "azure"
    if host == "api.openai.com" or host.endswith(".api.openai.com"):
        return "openai"
    return "other"


def handshake(upstream: Upstream, model: str) -> tuple[str, Mapping[str, str]]:
    """
    Return the WebSocket's URL and the headers that carry the key.

    `model` is what the app asked for. A query in the configured URL stands; a base (`.../v1`) gets `/realtime`.
    """
    parts = urlsplit(upstream.url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    name = upstream.deployment or upstream.model or model
    version = upstream.api_version
    if upstream.kind == "azure" and (version or "api-version" in query or "deployment" in query):
        if version:
            query.setdefault("api-version", version)
        query.setdefault("deployment", name)
        path = _path(parts.path, "/openai")
    else:
        query.setdefault("model", name)
        path = _path(parts.path, "/openai/v1" if upstream.kind == "azure" else "/v1")
    url = urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, urlencode(query), ""))
    if not upstream.key:
        return url, {}
    if upstream.kind == "azure":
        return url, {"api-key": upstream.key}
    return url, {"Authorization": f"Bearer {upstream.key}"}


def _path(path: str, base: str) -> str:
    path = path.rstrip("/") or base
    return f"{path}/realtime" if path.endswith(("/v1", "/openai")) else path
