"""
Signatures as in Standard Webhooks (API rows W06 to W12).

`v1,` and the base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`, one for each secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

__all__ = ["SecretError", "sign", "signing_key"]

PREFIX = "whsec_"


class SecretError(ValueError):
    """A signing secret that receivers could not use. The message does not repeat it."""


def signing_key(secret: str) -> bytes:
    """
    Return the HMAC key of a secret: what stands after `whsec_`, decoded; without that prefix, the secret's own bytes.

    Raises `SecretError` when what stands after the prefix is not padded standard base64, since the openai
    package cannot decode that either (API row W08).
    """
    if not secret.startswith(PREFIX):
        if not secret:
            raise SecretError("the signing secret is empty")
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SecretError(
            f"the signing secret is not {PREFIX} and padded standard base64 ({error}); "
            f"make one with: echo {PREFIX}$(openssl rand -base64 32)"
        ) from error
    if not key:
        raise SecretError(f"the signing secret has nothing after {PREFIX}")
    return key


def sign(secrets: Iterable[str], *, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` value: one signature for each secret, in order, with spaces between."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(signing_key(secret), signed, hashlib.sha256)).decode()
        for secret in secrets
    )
