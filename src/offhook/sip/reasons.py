"""Why a call or a request ended, as the Reason header says it (RFC 3326)."""

from __future__ import annotations

from typing import Literal

from .message import Request

__all__ = ["create_reason", "reasons_of"]

MAX_TEXT = 200
"Characters of a text that the peer is told, and of all that it tells."


def create_reason(protocol: Literal["SIP", "Q.850"], cause: int, text: str) -> str:
    """Return a header value: a SIP status or an ITU-T Q.850 cause, with one quoted string whatever `text` holds."""
    text = "".join(char if char.isprintable() and char not in '"\\' else "'" for char in text)
    return f'{protocol};cause={cause};text="{text[:MAX_TEXT]}"'


def reasons_of(request: Request) -> str | None:
    """Return all Reasons of a request as they stand, in order; bounded. `None` if there is none."""
    said = ", ".join(value.strip() for value in request.headers.get_all("Reason") if value.strip())
    if not said:
        return None
    return said if len(said) <= MAX_TEXT else said[:MAX_TEXT] + " ..."
