"""Who asks (API rows C01, C02, C10, S08)."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers

from offhook.calls.errors import CallError
from offhook.tenants import Project, Projects, key_id

__all__ = ["authenticate", "client_secret_of", "key_id_of"]

CLIENT_SECRET = "ek_"  # noqa: S105 - what they begin with
KEY_PROTOCOL = "openai-insecure-api-key."
PROJECT_PROTOCOL = "openai-project."
ORGANIZATION_PROTOCOL = "openai-organization."


def authenticate(headers: Headers, projects: Projects, *, subprotocols: Iterable[str] = ()) -> Project:
    """
    Return the project whose key the request carries: `Authorization: Bearer`, `api-key`, or a WebSocket subprotocol.

    Raises `CallError` 401.
    """
    subprotocols = tuple(subprotocols)
    keys = [key for key in _keys(headers, subprotocols) if key]
    if not keys:
        raise CallError(
            401,
            "You didn't provide an API key. Send it as Authorization: Bearer YOUR_KEY, or in an api-key header.",
            code="invalid_api_key",
        )
    project = next((found for key in keys if (found := projects.by_api_key(key)) is not None), None)
    if project is None:
        raise _wrong_key(keys)
    named = headers.get("openai-project") or _after(PROJECT_PROTOCOL, subprotocols)
    if named and named != project.id:
        raise CallError(
            401,
            "OpenAI-Project header should match project for API key.",
            code="mismatched_project",
        )
    return project


def key_id_of(headers: Headers, projects: Projects) -> str:
    """Return the id of the key that opened this request; empty for one that nothing opened."""
    opening = (key for key in _keys(headers, ()) if key and projects.by_api_key(key) is not None)
    key = next(opening, None)
    return key_id(key) if key is not None else ""


def client_secret_of(headers: Headers, subprotocols: Iterable[str]) -> str | None:
    """Return the client secret that somebody comes with instead of a key."""
    keys = [key for key in _keys(headers, tuple(subprotocols)) if key]
    return keys[0] if keys and all(key.startswith(CLIENT_SECRET) for key in keys) else None


def _keys(headers: Headers, subprotocols: Iterable[str]) -> list[str | None]:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    bearer = credentials.strip() if scheme.lower() == "bearer" else None
    return [bearer, headers.get("api-key"), _after(KEY_PROTOCOL, subprotocols)]


def _after(prefix: str, subprotocols: Iterable[str]) -> str | None:
    return next(
        (protocol.removeprefix(prefix) for protocol in subprotocols if protocol.startswith(prefix)), None
    )


def _wrong_key(keys: list[str]) -> CallError:
    if any(key.startswith(CLIENT_SECRET) for key in keys):
        message = (
            "A client secret (ek_...) opens a session without a call (a WebSocket with ?model=) and nothing else. Use "
            "the project's API key."
        )
    else:
        message = "Incorrect API key provided. No project of this node has it."
    return CallError(401, message, code="invalid_api_key")
