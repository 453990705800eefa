"""Records of one project. They are immutable: a change of configuration makes new ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Literal

__all__ = [
    "CaptureMode",
    "DigestAccount",
    "Fallback",
    "Project",
    "Register",
    "SrtpMode",
    "Trunk",
    "WebhookEndpoint",
    "key_id",
    "plain_address",
]

SrtpMode = Literal["off", "optional", "required"]
CaptureMode = Literal["off", "rtp", "rtp+keys"]


def key_id(api_key: str) -> str:
    """Return what logs may call a key: `key_` and the first 12 hex digits of its SHA-256."""
    return f"key_{hashlib.sha256(api_key.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A URL of the developer's app that is told about events."""

    id: str
    "`wh_...`"
    url: str
    secrets: tuple[str, ...] = field(repr=False)
    "Signing secrets, `whsec_...`, the current one first; each makes one signature (API row W11)."
    events: frozenset[str] = frozenset({"realtime.call.incoming"})
    name: str = ""
    configured: bool = True
    "It stands in the configuration, which alone changes it; else it was made by API."
    old_secrets_until: tuple[float, ...] = ()
    "Unix seconds at which each secret after the first stops signing; empty: they never do."
    created_at: float = 0.0
    updated_at: float = 0.0

    def secrets_at(self, wall: float) -> tuple[str, ...]:
        """Return the secrets that sign at this time, in Unix seconds."""
        if not self.old_secrets_until:
            return self.secrets
        old = zip(self.secrets[1:], self.old_secrets_until, strict=True)
        return (self.secrets[0], *(secret for secret, until in old if wall < until))


@dataclass(frozen=True, slots=True)
class DigestAccount:
    """The user and password that a trunk answers challenges with (RFC 8760)."""

    user: str
    password: str = field(repr=False)
    realm: str = "offhook"
    algorithms: tuple[str, ...] = ("SHA-256", "MD5")


@dataclass(frozen=True, slots=True)
class Register:
    """How this side registers with a trunk's registrar, for numbers that go to whoever is registered."""

    registrar: str
    "`sip:sip.example.net;transport=tls`"
    user: str
    password: str = field(repr=False)
    auth_user: str = ""
    "The name that challenges are answered with, when it is not `user`."
    contact_user: str = ""
    "The user of our Contact, which calls are for; empty: the project's id."
    expires_s: int = 600


@dataclass(frozen=True, slots=True)
class Trunk:
    """
    A SIP peer that may call a project: by its address, by its password, or, where both are given, by both at once.

    One with neither admits nobody.
    """

    name: str
    sources: tuple[IPv4Network | IPv6Network, ...] = ()
    "Addresses that its requests come from; none: any, if it knows the password."
    tls_hostname: str = ""
    "What its certificate must show where a route names a bare address; empty: that address."
    digest: DigestAccount | None = None
    "What its INVITEs must prove; `None`: the address is enough."
    register: Register | None = None
    "With it, the registrar's addresses are sources too. The trunk's name is then no other's of the project."

    def holds(self, address: str) -> bool:
        """Whether an address is one of its sources."""
        ip = _parse_address(address)
        return ip is not None and any(ip in source for source in self.sources if source.version == ip.version)


@dataclass(frozen=True, slots=True)
class Fallback:
    """What becomes of a call that no app accepts in time: an accept body, or a SIP status."""

    status: int = 480
    accept: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """A tenant: its keys open its calls and no others (API row R24)."""

    id: str
    "`proj_...`, the user part of the SIP URI that its trunks call."
    api_keys: tuple[str, ...] = ()
    webhooks: tuple[WebhookEndpoint, ...] = ()
    trunks: tuple[Trunk, ...] = ()
    numbers: tuple[str, ...] = ()
    "Called numbers that also lead here, for trunks that put the number into the Request-URI."
    hosts: tuple[str, ...] = ()
    "Request-URI hosts that also lead here."
    max_calls: int = 0
    "Concurrent calls; 0 means the node's limit."
    fallback: Fallback | None = None
    "Used when nobody accepts in time; with none, the caller gets 480."
    passthrough: str | None = None
    """
    The upstream that requests about calls of others go to; empty: none, and they are answered 404. `None`: as the
    node's default says.
    """
    srtp: SrtpMode = "optional"
    "Whether calls may, or must, have their sound encrypted by SDES keys."
    record: bool = False
    "Whether its calls are recorded from the answer on; else those whose app asks for it."
    capture: CaptureMode = "off"
    "Whether the packets of its calls are kept as they were on the wire, and the keys that open them."
    refer_targets: tuple[str, ...] = ()
    "Where its calls may be transferred to, such as `tel:+1`; none: anywhere."


def plain_address(address: str) -> str:
    """Return a peer's address as it is compared: one of IPv4 that a dual-stack socket shows, as such."""
    return str(_parse_address(address) or address)


@lru_cache(maxsize=4096)
def _parse_address(address: str) -> IPv4Address | IPv6Address | None:
    try:
        ip = ip_address(address.split("%")[0])
    except ValueError:
        return None
    # A dual-stack socket shows IPv4 peers as ::ffff:192.0.2.1.
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip
