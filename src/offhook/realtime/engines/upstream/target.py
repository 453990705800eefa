"""
A Realtime API that can be a call's voice, or that has calls of its own; and how it is addressed (API rows A01 to A05).

All that is known of the forms of URLs stands here: of the WebSocket for a model, of the WebSocket beside a call, and
of the verbs on a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from .failover import SILENCE_S

__all__ = ["Kind", "Upstream", "call_sideband", "call_verb", "guess_kind", "handshake"]

Kind = Literal["openai", "azure", "offhook", "other"]
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_REST_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_FORM = frozenset({"api-version", "deployment", "model"})
"What a query says of the model and of Azure's older form."


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
    dialect: Literal["ga", "beta"] | None = None
    "How its events are called; `None`: `beta` in Azure's older form, else `ga`."
    audio: Literal["auto", "pcm"] = "auto"
    "`auto`: the caller's G.711 as it is, where the upstream takes it. `pcm`: 24 kHz always."
    ca_file: str = ""
    "PEM: trusted besides the system's CAs."

    @property
    def speaks_beta(self) -> bool:
        """Whether it knows the API as it was before its general availability (rows G21, G22)."""
        if self.dialect is not None:
            return self.dialect == "beta"
        return _is_legacy(self, dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True)))


def guess_kind(url: str) -> Kind:
    """Return whose API an address is, by its host."""
    host = urlsplit(url).hostname or ""
    if host.endswith(".azure.com"):
        return "azure"
    if host == "api.openai.com" or host.endswith(".api.openai.com"):
        return "openai"
    return "other"


def handshake(upstream: Upstream, model: str, intent: str | None = None) -> tuple[str, Mapping[str, str]]:
    """
    Return the WebSocket's URL and the headers that carry the key.

    `model` is what the app asked for. A query in the configured URL stands; a base (`.../v1`) gets `/realtime`.
    With an `intent` the hosted services take no model, and refuse one; others may choose by it.
    """
    parts = urlsplit(upstream.url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    path = _path(upstream, parts.path, query)
    name = upstream.deployment or upstream.model or model
    legacy = _is_legacy(upstream, query)
    if legacy and upstream.api_version:
        query.setdefault("api-version", upstream.api_version)
    if name:
        query.setdefault("deployment" if legacy else "model", name)
    if intent:
        query["intent"] = intent
        if upstream.kind in ("openai", "azure"):
            query = {word: value for word, value in query.items() if word not in ("model", "deployment")}
    headers = dict(_key(upstream))
    if upstream.speaks_beta and upstream.kind != "azure":
        headers["OpenAI-Beta"] = "realtime=v1"
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, urlencode(query), "")), headers


def call_verb(upstream: Upstream, call_id: str, verb: str) -> tuple[str, Mapping[str, str]]:
    """Return the URL of `POST .../realtime/calls/{call_id}/{verb}` and the headers that carry the key (row A01)."""
    parts = urlsplit(upstream.url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    path = f"{_path(upstream, parts.path, query)}/calls/{quote(call_id, safe='')}/{quote(verb, safe='')}"
    version = _version(upstream, query)
    kept = {name: value for name, value in query.items() if name not in _FORM} | version
    return urlunsplit((_REST_SCHEMES[parts.scheme], parts.netloc, path, urlencode(kept), "")), _key(upstream)


def call_sideband(upstream: Upstream, query: Iterable[tuple[str, str]]) -> tuple[str, Mapping[str, str]]:
    """
    Return the URL of the WebSocket beside a call and the headers that carry the key (row A02).

    `query` is what the app gave, `call_id` among it. Which of Azure's forms is asked for is the upstream's affair, so
    the app's own `api-version` and `deployment` do not go up.
    """
    parts = urlsplit(upstream.url)
    configured = dict(parse_qsl(parts.query, keep_blank_values=True))
    asked = [(name, value) for name, value in query if name not in ("api-version", "deployment")]
    named = {name for name, _ in asked}
    kept = [(name, value) for name, value in configured.items() if name not in named | _FORM]
    version = _version(upstream, configured)
    if version and (name := configured.get("deployment") or upstream.deployment or upstream.model):
        version["deployment"] = name
    path = _path(upstream, parts.path, configured)
    text = urlencode([*asked, *kept, *version.items()])
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, text, "")), _key(upstream)


def _is_legacy(upstream: Upstream, query: Mapping[str, str]) -> bool:
    """Whether Azure is asked in the form before `v1`."""
    return upstream.kind == "azure" and bool(
        upstream.api_version or "api-version" in query or "deployment" in query
    )


def _version(upstream: Upstream, query: Mapping[str, str]) -> dict[str, str]:
    """Return what the older form's query says of itself; nothing for any other form."""
    if not _is_legacy(upstream, query):
        return {}
    version = query.get("api-version") or upstream.api_version
    return {"api-version": version} if version else {}


def _path(upstream: Upstream, path: str, query: Mapping[str, str]) -> str:
    base = "/v1"
    if upstream.kind == "azure":
        base = "/openai" if _is_legacy(upstream, query) else "/openai/v1"
    path = path.rstrip("/") or base
    return f"{path}/realtime" if path.endswith(("/v1", "/openai")) else path


def _key(upstream: Upstream) -> Mapping[str, str]:
    if not upstream.key:
        return {}
    if upstream.kind == "azure":
        return {"api-key": upstream.key}
    return {"Authorization": f"Bearer {upstream.key}"}
