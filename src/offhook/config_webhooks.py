"""The configuration's tables of webhook endpoints."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from offhook.config_trunks import Table
from offhook.outbound import OutboundPolicy
from offhook.tenants import WebhookEndpoint
from offhook.webhooks.signature import SecretError, signing_key

__all__ = ["WebhookTable", "WebhooksTable", "to_endpoints"]


class WebhooksTable(Table):
    """What endpoints that are made by API may point at, besides `https:` at public addresses."""

    allow_loopback: bool = False
    "This machine, also by `http:`."
    allow_private: bool = False
    "Private networks."

    def to_policy(self) -> OutboundPolicy:
        return OutboundPolicy(private=self.allow_private, loopback=self.allow_loopback)


class WebhookTable(Table):
    """One endpoint of a project."""

    name: Annotated[str, Field(max_length=256)] = ""
    "What lists call it. With a name it stays the same endpoint when its URL changes."
    url: Annotated[str, Field(max_length=2048, pattern=r"^https?://")]
    secret: str
    "`whsec_` and padded base64 of 24 to 64 bytes."
    old_secrets: tuple[str, ...] = ()
    "Secrets that still sign beside the current one, while receivers change over."
    events: tuple[str, ...] = ("realtime.call.incoming",)

    @field_validator("url")
    @classmethod
    def _can_be_called(cls, url: str) -> str:
        parts = urlsplit(url)
        try:
            named = bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port beyond 65535
            named = False
        if not named:
            raise ValueError(f"{url!r} names no host and port that can be called")
        if parts.username is not None:
            raise ValueError("a user or password in it would not be sent; the signature says who calls")
        return url

    @field_validator("secret", "old_secrets")
    @classmethod
    def _signs(cls, given: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for secret in (given,) if isinstance(given, str) else given:
            try:
                signing_key(secret)
            except SecretError as error:
                raise ValueError(str(error)) from None
        return given


def to_endpoints(project_id: str, tables: Iterable[WebhookTable]) -> tuple[WebhookEndpoint, ...]:
    """Return a project's endpoints. Each id stays the same while others come and go: events may wait for it."""
    seen: Counter[str] = Counter()
    endpoints = []
    for table in tables:
        identity = table.name or table.url
        seen[identity] += 1
        text = f"{project_id} {identity} {seen[identity]}"
        endpoints.append(
            WebhookEndpoint(
                id=f"wh_{hashlib.sha256(text.encode()).hexdigest()[:24]}",
                url=table.url,
                secrets=(table.secret, *table.old_secrets),
                events=frozenset(table.events),
                name=table.name or table.url[:256],
            )
        )
    return tuple(endpoints)
