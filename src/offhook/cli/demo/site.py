"""Where one of the demo's nodes runs: a folder, free ports, a key, and the configuration that says so."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from offhook import ids

__all__ = ["HOST", "Site", "StageError", "free_ports", "free_sip_ports", "media_range"]

HOST = "127.0.0.1"
_MEDIA_PORTS = 40


class StageError(Exception):
    """The demo cannot be set up; the message says why and what would do."""


@dataclass(frozen=True, slots=True)
class Site:
    name: str
    data_dir: Path
    config: Path
    http_port: int
    https_port: int
    api_key: str

    @classmethod
    def choose(cls, names: Sequence[str], folder: Path) -> list[Site]:
        """Choose a place for each name: ports that are free, and a key."""
        ports = free_ports(2 * len(names))
        return [
            cls(name, folder / name, folder / f"{name}.toml", http, https, ids.api_key())
            for name, http, https in zip(names, ports[::2], ports[1::2], strict=True)
        ]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.http_port}"

    @property
    def https_url(self) -> str:
        return f"https://{HOST}:{self.https_port}"

    @property
    def ca(self) -> Path:
        """The development CA, which the node makes at its first start."""
        return self.data_dir / "tls" / "ca.pem"

    def configure(self, *tables: str) -> None:
        """Write the configuration: what all nodes have, and the tables given."""
        head = f"""# Written by `offhook demo`; offhook serve --config {self.config} starts the same node.
[server]
http = "{HOST}:{self.http_port}"
https = "{HOST}:{self.https_port}"
data_dir = {json.dumps(str(self.data_dir))}
shutdown_grace_s = 1
"""
        self.config.write_text(head + "".join(tables))


def free_ports(count: int) -> list[int]:
    """Return TCP ports that are free."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def free_sip_ports() -> tuple[int, int]:
    """Return a port that is free on UDP and TCP, and one for TLS."""
    for _ in range(50):
        port, tls = free_ports(2)
        if _is_free(port):
            return port, tls
    raise StageError(f"no port on {HOST} is free on both UDP and TCP")


def media_range() -> str:
    """Return a range of UDP ports that are free, as the configuration writes it."""
    for _ in range(100):
        first = random.randrange(20_000, 32_000, 2)  # noqa: S311 - no secret
        if all(_is_free(port) for port in range(first, first + _MEDIA_PORTS)):
            return f"{first}-{first + _MEDIA_PORTS - 1}"
    raise StageError(f"no {_MEDIA_PORTS} free UDP ports in a row on {HOST} between 20000 and 32000")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
