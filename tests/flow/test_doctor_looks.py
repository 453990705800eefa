"""What the doctor sees: real certificate files, a DNS zone, endpoints that answer in all ways, files kept from it."""

from __future__ import annotations

import asyncio
import datetime
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from offhook.cli.doctor.command import _Looks
from offhook.cli.doctor.facts import Facts
from offhook.cli.doctor.judge import judge
from offhook.cli.doctor.machine import find_certificate, find_ports
from offhook.cli.doctor.network import find_names, try_webhooks
from offhook.cli.doctor.rehearsal import try_models
from offhook.cli.doctor.verdict import Finding
from offhook.config import Config
from offhook.sip.resolver import Resolver

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
HOST = "sip.example.net"


def config(folder: Path, **tables: Any) -> Config:
    return Config.model_validate({"server": {"data_dir": folder}, **tables})


def wrong(**facts: Any) -> list[Finding]:
    """The findings that are not well."""
    found = [one for one in judge(Facts(**facts)) if one.level != "ok"]
    assert all(one.remedy for one in found)
    return found


# Certificates.


@dataclass
class Signer:
    """A CA, or one that a CA has signed."""

    name: str
    by: Signer | None = None
    days: float = 60
    ca: bool = True

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        signer, now = self.by or self, datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(self.name))
            .issuer_name(_name(signer.name))
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=90))
            .not_valid_after(now + datetime.timedelta(days=self.days))
            .add_extension(x509.BasicConstraints(self.ca, None), critical=True)
        )
        if not self.ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(self.name)]), False)
        self.cert = builder.sign(signer.key, hashes.SHA256())


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def certificate(folder: Path, chain: Sequence[Signer], key: Signer) -> list[Finding]:
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(b"".join(one.cert.public_bytes(pem) for one in chain))
    private = key.key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    tables = {
        "tls": {"cert": str(folder / "cert.pem"), "key": str(folder / "key.pem")},
        "sip": {"public_host": HOST},
    }
    return wrong(certificate=find_certificate(config(folder, **tables)))


ROOT = Signer("root")
BETWEEN = Signer("between", ROOT)
LEAF = Signer(HOST, BETWEEN, ca=False)


@pytest.mark.parametrize(
    ("chain", "key", "text"),
    [
        ([LEAF, BETWEEN], LEAF, None),
        ([Signer(HOST, BETWEEN, days=-1, ca=False), BETWEEN], None, "ended 1.0 days ago"),
        ([Signer(HOST, BETWEEN, days=5, ca=False), BETWEEN], None, "this week"),
        ([Signer("pbx.example.net", BETWEEN, ca=False), BETWEEN], None, f"not for {HOST}"),
        ([LEAF, BETWEEN], ROOT, "is not the key of"),
        ([LEAF], LEAF, "without the one that signed it"),
        ([LEAF, ROOT], LEAF, "do not follow from each other"),
        ([Signer(HOST, old := Signer("old", ROOT, days=-3), ca=False), old], None, "that signed it"),
    ],
)
def test_a_certificate(tmp_path: Path, chain: list[Signer], key: Signer | None, text: str | None) -> None:
    found = certificate(tmp_path, chain, key or chain[0])
    if text is None:
        assert not found
    else:
        assert [text in one.text for one in found] == [True], found


# DNS.


def resolver(zone: dict[tuple[str, str], list[Any]]) -> Resolver:
    async def query(name: str, record_type: str) -> list[Any]:
        return zone.get((name, record_type), [])

    return Resolver(query)


def registering(folder: Path, monkeypatch: pytest.MonkeyPatch, registrar: str) -> Config:
    monkeypatch.setenv("CARRIER_PASSWORD", "x")
    register = {"registrar": registrar, "user": "u", "password_env": "CARRIER_PASSWORD"}
    trunk = {"name": "carrier", "register": register}
    return config(folder, projects=[{"id": "proj_x", "trunks": [trunk]}])


async def test_a_registrar_is_looked_for_as_register_will_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def target(name: str, port: int) -> Any:
        return SimpleNamespace(priority=1, weight=1, port=port, target=f"{name}.")

    zone: dict[tuple[str, str], list[Any]] = {
        ("_sips._tcp.carrier.example", "SRV"): [
            target("gone.invalid", 5061),
            target("b.carrier.example", 5071),
        ],
        ("b.carrier.example", "A"): [SimpleNamespace(address="192.0.2.7")],
        ("_sip._udp.carrier.example", "SRV"): [target("c.carrier.example", 5060)],
    }
    settings = registering(tmp_path, monkeypatch, "sip:carrier.example;transport=tls")
    (name,) = await find_names(settings, resolver(zone))
    assert (name.addresses, name.ways) == (("192.0.2.7",), ("tls port 5071",))
    assert not wrong(names=(name,))


async def test_a_registrar_that_no_record_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = registering(tmp_path, monkeypatch, "sip:carrier.invalid")
    (found,) = wrong(names=await find_names(settings, resolver({})))
    assert "the registrar of trunk carrier: carrier.invalid has no address" in found.text


async def test_a_public_host_without_an_address(tmp_path: Path) -> None:
    (found,) = wrong(names=await find_names(config(tmp_path, sip={"public_host": "no.invalid"})))
    assert "sip.public_host: no.invalid has no address" in found.text


# Webhook endpoints.


@asynccontextmanager
async def endpoint(
    answer: bytes, *, asked: asyncio.Event | None = None, after: asyncio.Event | None = None
) -> AsyncIterator[int]:
    """A server that gives everybody this answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)  # something: it may be the hello of TLS
        if asked is not None:
            asked.set()
        if after is not None:
            await after.wait()
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def asking(folder: Path, url: str) -> Config:
    return config(folder, projects=[{"id": "proj_x", "webhooks": [{"url": url, "secret": SECRET}]}])


@pytest.mark.parametrize(
    ("answer", "text", "remedy"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\n", "answered 401", "OPENAI_WEBHOOK_SECRET"),
        (b"HTTP/1.1 400 Bad Request\r\n", "answered 400", "OPENAI_WEBHOOK_SECRET"),
        (
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\n",
            "redirects (307)",
            "final URL",
        ),
        (b"HTTP/1.1 404 Not Found\r\n", "answered 404", "path of the URL"),
        (b"HTTP/1.1 500 Internal Server Error\r\n", "answered 500", "app's log"),
        (b"220 mail.example.net ESMTP\r\n", "", "no HTTP server"),
    ],
)
async def test_an_app_that_does_not_take_the_event(
    tmp_path: Path, answer: bytes, text: str, remedy: str
) -> None:
    async with endpoint(answer + b"Content-Length: 0\r\n\r\n") as port:
        facts, _ = await try_webhooks(asking(tmp_path, f"http://127.0.0.1:{port}/"), (), send=True)
    (found,) = wrong(webhooks=tuple(facts))
    assert text in found.text
    assert remedy in found.remedy


async def test_an_app_that_is_down_or_has_no_tls(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        for send in (False, True):
            facts, _ = await try_webhooks(asking(tmp_path, url), (), send=send)
            (found,) = wrong(webhooks=tuple(facts))
            assert "Connection refused" in found.text
            assert "Start the app" in found.remedy
    async with endpoint(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        facts, _ = await try_webhooks(asking(tmp_path, f"https://127.0.0.1:{port}/"), (), send=False)
    (found,) = wrong(webhooks=tuple(facts))
    assert "TLS with 127.0.0.1 failed" in found.text


async def test_endpoints_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """The first answers only once the second has been asked."""
    second, well = asyncio.Event(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with endpoint(well, after=second) as one, endpoint(well, asked=second) as other:
        hooks = [{"url": f"http://127.0.0.1:{port}/", "secret": SECRET} for port in (one, other)]
        settings = config(tmp_path, projects=[{"id": "proj_x", "webhooks": hooks}])
        facts, _ = await try_webhooks(settings, (), send=True)
    assert [one.status for one in facts] == [200, 200]


# Ports, files, and looks that fail.


def test_a_port_that_another_program_has(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        found = wrong(ports=tuple(find_ports(config(tmp_path, sip={"listen": [f"udp:127.0.0.1:{port}"]}))))
    held = [one for one in found if "sip.listen" in one.text]
    assert [f"udp:127.0.0.1:{port} is taken by" in one.text for one in held] == [True]
    assert "another port for sip.listen" in held[0].remedy


async def test_a_sentence_that_cannot_be_read_is_said_before_it_stops_the_start(tmp_path: Path) -> None:
    engine = {"kind": "scripted", "hold_sentence": str(tmp_path / "none.wav")}
    (found,) = wrong(models=tuple(await try_models(config(tmp_path, engine=engine))))
    assert "engine.hold_sentence" in found.text


async def test_what_cannot_be_looked_at_is_said_and_costs_nothing_else() -> None:
    looks = _Looks()

    def closed() -> int:
        raise PermissionError(13, "Permission denied", "/srv/offhook.db")

    async def broken() -> int:
        raise KeyError("odd")

    assert looks.at("database", closed, 7) == 7
    assert await looks.ask("dns", broken(), 8) == 8
    one, other = looks.failed
    assert (one.level, one.check) == ("fault", "database")
    assert "/srv/offhook.db: Permission denied" in one.text
    assert "as the user" in one.remedy
    assert (other.check, "KeyError" in other.text) == ("dns", True)
