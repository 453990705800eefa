"""Where a message came from and where one can be sent: the five-tuple that SIP calls a flow (RFC 5626)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Address", "Flow", "format_address"]

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Flow:
    """One UDP address pair, or one TCP or TLS connection."""

    transport: str
    "`udp`, `tcp` or `tls`."
    local: Address
    remote: Address
    connection: int | None = None
    "Number of the connection, unique in its endpoint; `None` on UDP."

    def __str__(self) -> str:
        return f"{self.transport} {format_address(self.remote)}"

    @property
    def is_reliable(self) -> bool:
        """Return whether the transport itself repeats what gets lost (RFC 3261 section 17)."""
        return self.connection is not None


@lru_cache(maxsize=1024)
def format_address(address: Address) -> str:
    """Return `host:port`, with IPv6 hosts in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
