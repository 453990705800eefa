"""The body of a webhook (API row W02)."""

from __future__ import annotations

import orjson

from offhook.calls.ports import WebhookEvent

__all__ = ["encode"]


def encode(event: WebhookEvent) -> bytes:
    """
    Return the body as UTF-8 JSON. It is signed and sent as these very bytes, on every attempt.

    A SIP header may hold bytes that are no text; what of them cannot be written as UTF-8 is replaced.
    """
    body = {
        "object": "event",
        "id": event.id,
        "type": event.type,
        "created_at": event.created_at,
        "data": event.data,
    }
    try:
        return orjson.dumps(body)
    except TypeError:
        return orjson.dumps(_writable(body))


def _writable(value: object) -> object:
    """Return the same without lone surrogates, and with every mapping as a `dict`."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if hasattr(value, "items"):
        return {str(_writable(key)): _writable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(inner) for inner in value]
    return value
