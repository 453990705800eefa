"""What is found out about a machine and a configuration, before anybody says what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "AddressFacts",
    "CertificateFacts",
    "ClockFacts",
    "DatabaseFacts",
    "Facts",
    "FirewallFacts",
    "LimitFacts",
    "ModelFacts",
    "NameFacts",
    "NodeFacts",
    "PortFacts",
    "RehearsalFacts",
    "StoredFacts",
    "WebhookFacts",
]


@dataclass(frozen=True, slots=True)
class PortFacts:
    """One address that the node wants."""

    key: str
    "The configuration's key, such as `sip.listen`."
    address: str
    state: Literal["free", "held", "no_address", "not_allowed", "failed"]
    holder: str = ""
    "Which program has it, as far as this user may know."
    text: str = ""
    "The system's word for `failed`."


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node that runs at the configured address says."""

    url: str
    ready: bool
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    registrations: tuple[tuple[str, str, str], ...] = ()
    "Trunk, state, text."


@dataclass(frozen=True, slots=True)
class AddressFacts:
    """Where the node listens, what it tells others, and who shall reach it."""

    listen: tuple[tuple[str, str], ...]
    "Transport and host of each SIP address."
    public_host: str
    bind: str
    sdp_host: str
    interfaces: frozenset[str]
    "All addresses of this machine."
    outside: tuple[str, ...]
    "Trunks whose calls come from public addresses, or from wherever a password is known; by name."
    public_host_addresses: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FirewallFacts:
    """What this machine's own packet filter lets in."""

    known: bool
    "Whether this user may see it at all."
    drops: bool = False
    "Whether what no rule names is dropped."
    rules: str = ""
    "The rules, as text."
    wanted: tuple[tuple[str, int, int], ...] = ()
    "`udp` or `tcp`, first and last port, of what peers need."


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    cert: str
    key: str
    development: bool
    absent: bool = False
    "A development certificate that the first start will make."
    error: str = ""
    "Why the files cannot be used; then nothing below holds."
    key_matches: bool = True
    days_left: float = 0.0
    issuers_days_left: float | None = None
    "Of the one among the rest of the chain that ends first."
    begins_in_days: float = 0.0
    names: tuple[str, ...] = ()
    chain: int = 1
    "How many certificates the file has."
    self_signed: bool = False
    in_order: bool = True
    "Whether each certificate is signed by the next one."
    ca: str = ""
    public_host: str = ""
    tls_outside: bool = False
    "Whether peers from outside come by TLS."


@dataclass(frozen=True, slots=True)
class NameFacts:
    """One name that somebody has to resolve."""

    name: str
    what: str
    "`sip.public_host`, or `the registrar of trunk x`."
    addresses: tuple[str, ...] = ()
    ways: tuple[str, ...] = ()
    "Transport and port of each target, such as `tls port 5061`, where SIP asks (RFC 3263)."
    error: str = ""


@dataclass(frozen=True, slots=True)
class ClockFacts:
    skew_s: float | None = None
    "How far this clock is ahead of the other one."
    against: str = ""
    synchronised: bool | None = None
    "What the kernel says of its clock; `None`: nothing."


@dataclass(frozen=True, slots=True)
class ModelFacts:
    kind: str
    error: str = ""
    load_s: float | None = None
    speak_ms: float | None = None
    hear_ms: float | None = None
    seconds: float = 0.0
    "How long the sentence is that was spoken and heard."
    said: str = ""
    heard: str = ""
    brain_error: str = ""
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    url: str
    path: str = ""
    exists: bool = False
    writable: bool = True
    error: str = ""
    "Why it cannot be opened or is damaged."
    locked: bool = False
    "Another program has kept it from being written for as long as a node would wait."
    revision: str | None = None
    newest: str = ""
    known: bool = True
    "Whether this version has that revision."
    free_bytes: int | None = None
    bytes: int = 0
    wal_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LimitFacts:
    max_concurrent: int
    files: int
    "How many file descriptors this process may open."
    hard_files: int
    receive_buffer: int
    rmem_max: int | None
    port_pairs: int
    config_mode: int | None = None
    "The permissions of the configuration file when it holds secrets."
    config_path: str = ""


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """What was made by API, and is kept in the database."""

    projects: int
    "That can be used."
    endpoints: int
    unusable: tuple[tuple[str, str], ...] = ()
    "Project, why."
    overshadowed: tuple[tuple[str, str], ...] = ()
    "Project, and what of it the configuration has too, such as `host 'x' is that of proj_y`."


@dataclass(frozen=True, slots=True)
class WebhookFacts:
    project: str
    url: str
    sent: bool
    "Whether a signed test event was sent, or only a connection opened."
    error: str = ""
    kind: str = ""
    "`dns`, `connect`, `tls`, `timeout`, ... of an attempt that got no answer."
    status: int | None = None
    duration_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class RehearsalFacts:
    """One call through a throw-away node of this configuration."""

    transport: str
    error: str = ""
    answered: bool = False
    orderly: bool = False
    cause: str = ""
    heard_s: float = 0.0
    "How much of the node's voice came to the caller."
    packets_in: int = 0
    "How many packets came to the node, of all such calls together."
    replied: bool = False
    "Whether the node answered what the caller said."
    setup_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """All of them. What was not looked at is absent."""

    ports: tuple[PortFacts, ...] = ()
    node: NodeFacts | None = None
    addresses: AddressFacts | None = None
    firewall: FirewallFacts | None = None
    certificate: CertificateFacts | None = None
    names: tuple[NameFacts, ...] = ()
    clock: ClockFacts | None = None
    models: tuple[ModelFacts, ...] = ()
    database: DatabaseFacts | None = None
    stored: StoredFacts | None = None
    limits: LimitFacts | None = None
    webhooks: tuple[WebhookFacts, ...] = ()
    rehearsals: tuple[RehearsalFacts, ...] = ()
