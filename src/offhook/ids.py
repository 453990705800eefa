"""Identifiers that users see (API rows R23 and V14)."""

from __future__ import annotations

import base64
import re
import secrets

__all__ = [
    "admin_key",
    "api_key",
    "call_id",
    "client_secret",
    "is_call_id",
    "key_material",
    "opaque_id",
    "request_id",
    "sip_token",
    "webhook_secret",
]


def call_id(node: str) -> str:
    """Return a new call id, `rtc_<node>_<32 hex>`: unguessable, and it names the node that holds the call."""
    return f"rtc_{node}_{secrets.token_hex(16)}"


def is_call_id(text: str, node: str) -> bool:
    """Whether a node of this name may have made such a call id."""
    return re.fullmatch(rf"rtc_{re.escape(node)}_[0-9a-f]{{32}}", text) is not None


def opaque_id(prefix: str) -> str:
    """Return a new id such as `event_<24 hex>`, `item_...`, `resp_...`, `sess_...`, `wh_...`."""
    return f"{prefix}_{secrets.token_hex(12)}"


def request_id() -> str:
    """Return a new value for the `x-request-id` header."""
    return f"req_{secrets.token_hex(16)}"


def sip_token(nbytes: int = 8) -> str:
    """Return a random token for tags, branches and Call-IDs (RFC 3261 section 19.3 asks for 32 bits or more)."""
    return secrets.token_hex(nbytes)


def key_material(length: int) -> bytes:
    """Return so many octets for a key, as for SRTP (RFC 4568 section 6.1)."""
    return secrets.token_bytes(length)


def api_key() -> str:
    """Return a new API key, `sk-offhook-...`."""
    return f"sk-offhook-{secrets.token_urlsafe(32)}"


def client_secret() -> str:
    """Return a new client secret, `ek_...`."""
    return f"ek_{secrets.token_urlsafe(32)}"


def admin_key() -> str:
    """Return a new key for whoever runs the node, `ak-offhook-...`."""
    return f"ak-offhook-{secrets.token_urlsafe(32)}"


def webhook_secret() -> str:
    """Return a new signing secret: `whsec_` and padded standard base64 of 32 bytes (API row W08)."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
