"""Looks at this machine: ports, addresses, packet filter, certificate, limits."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import errno
import os
import resource
import shutil
import socket
import ssl
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from offhook.config import Config
from offhook.config_trunks import TrunkTable
from offhook.sip.datagrams import RECEIVE_BUFFER
from offhook.sip.transport import parse_listen

from .facts import (
    AddressFacts,
    CertificateFacts,
    FirewallFacts,
    LimitFacts,
    PortFacts,
)

__all__ = [
    "find_addresses",
    "find_certificate",
    "find_firewall",
    "find_limits",
    "find_ports",
    "is_from_outside",
    "is_synchronised",
]


DAY_S = 86_400
_TIMEX_BYTES = 512
"More than `struct timex` takes anywhere. All of it is 0: ask, and set nothing."
_TIME_ERROR = 5


def find_ports(config: Config) -> list[PortFacts]:
    """Try every address that the node would bind, and let go of it at once."""
    wanted = [
        (f"server.{name}", "tcp", *_host_port(address))
        for name, address in (("http", config.server.http), ("https", config.server.https))
        if address
    ]
    for item in config.sip.listen:
        one = parse_listen(item)
        wanted.append(("sip.listen", one.transport, one.host, one.port))
    first, _ = config.media.port_range
    found = [_try(key, transport, host, port) for key, transport, host, port in wanted]
    media = _try("media.bind", "udp", config.media.bind, 0)
    if media.state != "free":
        found.append(PortFacts("media.bind", config.media.bind, media.state, text=media.text))
    else:
        found.append(_try("media.ports", "udp", config.media.bind, first + first % 2))
    return found


def _try(key: str, transport: str, host: str, port: int) -> PortFacts:
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = f"{transport}:{f'[{host}]' if ':' in host else host}:{port}"
    try:
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
            if kind == socket.SOCK_STREAM:
                probe.listen(1)
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                return PortFacts(key, address, "held", _holder("udp" if transport == "udp" else "tcp", port))
            case errno.EADDRNOTAVAIL:
                return PortFacts(key, address, "no_address")
            case errno.EACCES:
                return PortFacts(key, address, "not_allowed")
        return PortFacts(key, address, "failed", text=error.strerror or str(error))
    return PortFacts(key, address, "free")


def _holder(protocol: str, port: int) -> str:
    """Return the command line and process id of who has a port, as far as /proc shows it to this user."""
    inodes = set()
    for table in (protocol, f"{protocol}6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                listens = protocol == "udp" or words[3] == "0A"
                if listens and int(words[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{words[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(os.readlink(file) in inodes for file in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                return f"{_named(words)} (process {process.name})"
    return ""


def _named(words: list[str]) -> str:
    """Say which program a command line is of. Its arguments may hold secrets: they are not shown."""
    names = [Path(word).name for word in words if word]
    if any(name == "offhook" for name in names[:4]):
        return "offhook"
    return names[0] if names else "a program"


def find_addresses(config: Config) -> AddressFacts:
    return AddressFacts(
        listen=tuple((one.transport, one.host) for one in map(parse_listen, config.sip.listen)),
        public_host=config.sip.public_host,
        bind=config.media.bind,
        sdp_host=config.media.sdp_host,
        interfaces=_interfaces(),
        outside=tuple(
            f"{trunk.name} ({project.id})"
            for project in config.projects
            for trunk in project.trunks
            if is_from_outside(trunk)
        ),
    )


def is_from_outside(trunk: TrunkTable) -> bool:
    """Whether calls of a trunk come from public addresses: it says so, or registers, or knows a password alone."""
    if trunk.register_ is not None or not trunk.sources:
        return True
    return any(_is_global(source) for source in trunk.sources)


def _is_global(source: str) -> bool:
    address = ip_address(source.partition("/")[0])
    documentation = any(
        str(address).startswith(prefix) for prefix in ("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8:")
    )
    return address.is_global or documentation or address.is_unspecified


def _interfaces() -> frozenset[str]:
    """Return this machine's addresses, as the kernel lists them."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        last = ""
        for line in Path("/proc/net/fib_trie").read_text().splitlines():
            words = line.split()
            if "|--" in words:
                last = words[words.index("|--") + 1]
            elif "host" in words and "LOCAL" in words:
                found.add(last)
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            found.add(str(ip_address(bytes.fromhex(line.split()[0]))))
    return frozenset(found)


def find_firewall(config: Config) -> FirewallFacts:
    wanted = [
        ("udp" if one.transport == "udp" else "tcp", one.port, one.port)
        for one in map(parse_listen, config.sip.listen)
        if one.port
    ]
    wanted.append(("udp", *config.media.port_range))
    ports = tuple(dict.fromkeys(wanted))
    for command in (("iptables", "-S", "INPUT"), ("nft", "list", "ruleset")):
        path = shutil.which(command[0])
        if path is None:
            continue
        try:
            done = subprocess.run(  # noqa: S603 - two fixed commands
                (path, *command[1:]), capture_output=True, text=True, timeout=3, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            rules = done.stdout
            drops = "-P INPUT DROP" in rules or "-A INPUT -j DROP" in rules or "-A INPUT -j REJECT" in rules
            drops = drops or ("hook input" in rules and "policy drop" in rules)
            return FirewallFacts(True, drops, rules, ports)
    return FirewallFacts(False, wanted=ports)


def find_certificate(config: Config) -> CertificateFacts:
    outside = any(is_from_outside(trunk) for project in config.projects for trunk in project.trunks)
    by_tls = any(parse_listen(item).transport == "tls" for item in config.sip.listen)
    folder = config.server.data_dir / "tls"
    given = bool(config.tls.cert)
    cert, key = (
        (Path(config.tls.cert), Path(config.tls.key))
        if given
        else (folder / "server.pem", folder / "server.key")
    )
    facts = CertificateFacts(
        cert=str(cert),
        key=str(key),
        development=not given,
        ca=str(folder / "ca.pem"),
        public_host=config.sip.public_host if given else "",
        tls_outside=outside and by_tls,
    )
    if not given and not cert.is_file():
        return replace(facts, absent=True)
    try:
        chain = x509.load_pem_x509_certificates(cert.read_bytes())
        private = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        return replace(facts, error=text)
    leaf, now = chain[0], datetime.datetime.now(datetime.UTC)
    return replace(
        facts,
        key_matches=private.public_key() == leaf.public_key() and _loads(cert, key),
        days_left=_days(leaf, now),
        issuers_days_left=min((_days(one, now) for one in chain[1:]), default=None),
        begins_in_days=max(0.0, (leaf.not_valid_before_utc - now).total_seconds() / DAY_S),
        names=_names(leaf),
        chain=len(chain),
        self_signed=leaf.issuer == leaf.subject,
        in_order=all(_signed(one, by) for one, by in pairwise(chain)),
    )


def _days(cert: x509.Certificate, now: datetime.datetime) -> float:
    return (cert.not_valid_after_utc - now).total_seconds() / DAY_S


def _loads(cert: Path, key: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ValueError):  # `ssl.SSLError` is an `OSError`
        return False
    return True


def _signed(one: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(cert: x509.Certificate) -> tuple[str, ...]:
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(
        [*names.get_values_for_type(x509.DNSName)]
        + [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    )


def is_synchronised() -> bool | None:
    """Return what the kernel says of its clock (adjtimex(2)), whoever keeps it; `None`: nothing."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def find_limits(config: Config, path: Path | None) -> LimitFacts:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        rmem_max = int(Path("/proc/sys/net/core/rmem_max").read_text())
    except (OSError, ValueError):
        rmem_max = None
    first, last = config.media.port_range
    has_secrets = bool(config.engine.brain.api_key or config.server.admin_key) or any(
        project.api_keys or project.webhooks or any(trunk.digest_password for trunk in project.trunks)
        for project in config.projects
    )
    mode = path.stat().st_mode if path is not None and has_secrets else None
    return LimitFacts(
        max_concurrent=config.calls.max_concurrent,
        files=soft,
        hard_files=hard,
        receive_buffer=RECEIVE_BUFFER,
        rmem_max=rmem_max,
        port_pairs=(last + 1 - first - first % 2) // 2,
        config_mode=mode,
        config_path=str(path) if path is not None else "",
    )


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
