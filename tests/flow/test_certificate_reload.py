"""TLS of a running node: versions, and a new certificate under calls that go on."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from offhook.certificates import CertificateFiles, development_certificate
from testbed import DeveloperApp, Node, Phone, Sideband
from testbed.script import SCRIPT

HOSTS = ("127.0.0.1",)


@pytest.fixture
def made(tmp_path: Path) -> CertificateFiles:
    return development_certificate(tmp_path / "made", HOSTS)


@pytest.fixture
def live(tmp_path: Path, made: CertificateFiles) -> tuple[Path, Path]:
    """The files that the node is told of."""
    (tmp_path / "live").mkdir()
    cert, key = tmp_path / "live" / "cert.pem", tmp_path / "live" / "key.pem"
    shutil.copy(made.cert, cert)
    shutil.copy(made.key, key)
    return cert, key


@pytest.fixture
def secured(tmp_path: Path, live: tuple[Path, Path]) -> Iterator[Node]:
    with Node(tmp_path, script=SCRIPT, seats=2, tls=live) as running:
        yield running


def issue_again(folder: Path) -> CertificateFiles:
    """Have the same CA sign a second certificate."""
    for name in ("server.pem", "server.key"):
        (folder / name).unlink()
    return development_certificate(folder, HOSTS)


def shown(address: tuple[str, int], *, name: str | None = None) -> str:
    """Return the fingerprint of the certificate that is shown, after a handshake that must succeed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(address, timeout=30)
    with plain, context.wrap_socket(plain, server_hostname=name) as connection:
        certificate = connection.getpeercert(binary_form=True)
        assert certificate is not None
        return hashlib.sha256(certificate).hexdigest()


def fingerprint(path: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(_first(path.read_text()))).hexdigest()


def _first(chain: str) -> str:
    end = "-----END CERTIFICATE-----"
    return chain[: chain.index(end) + len(end)] + "\n"


def tls_addresses(node: Node) -> list[tuple[str, int]]:
    https = httpx2.URL(node.https_base_url)
    assert https.port is not None
    return [node.sip["tls"], (https.host, https.port)]


def try_version(address: tuple[str, int], version: ssl.TLSVersion) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # OpenSSL itself refuses old versions unless it is told not to.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(address, timeout=30) as plain, context.wrap_socket(plain) as connection:
        return connection.version() or ""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_1_2_and_1_3_are_spoken_and_nothing_older(secured: Node) -> None:
    for address in tls_addresses(secured):
        assert await asyncio.to_thread(try_version, address, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        assert await asyncio.to_thread(try_version, address, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        for old in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1):
            with pytest.raises(ssl.SSLError, match=r"ALERT_PROTOCOL_VERSION|EOF"):
                await asyncio.to_thread(try_version, address, old)


async def test_a_new_certificate_is_shown_after_sighup_and_calls_go_on(
    secured: Node, made: CertificateFiles, live: tuple[Path, Path]
) -> None:
    old = fingerprint(made.cert)
    async with DeveloperApp(secured) as app, Phone(secured, "tls", ca=made.ca) as phone:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id)
        await call.answered()
        async with Sideband(app.client, call_id) as sideband:
            for address in tls_addresses(secured):
                assert await asyncio.to_thread(shown, address) == old

            new = issue_again(made.cert.parent)
            assert fingerprint(new.cert) != old
            os.replace(shutil.copy(new.cert, f"{live[0]}.new"), live[0])
            os.replace(shutil.copy(new.key, f"{live[1]}.new"), live[1])
            secured.signal(signal.SIGHUP)
            await secured.logged("tls.certificate.loaded")

            for address in tls_addresses(secured):
                for name in (None, "127.0.0.1", "elsewhere.example"):
                    assert await asyncio.to_thread(shown, address, name=name) == fingerprint(new.cert)
            # The call that began before is heard, and its own connection still carries its end.
            await sideband.connection.response.create()
            await call.hears_sound(200)
        await app.client.realtime.calls.hangup(call_id)
        await call.ended()
        assert len(call.received("BYE")) == 1
        # And a new call comes by the new certificate.
        again = await phone.dial(app.seat.project)
        await app.accept((await app.incoming()).call_id)
        await again.answered()


async def test_a_certificate_that_cannot_be_used_leaves_the_old_one(
    secured: Node, made: CertificateFiles, live: tuple[Path, Path]
) -> None:
    old = fingerprint(made.cert)
    faults = {
        "not PEM at all": "",
        issue_again(made.cert.parent).cert.read_text(): "",  # whose key is not the one beside it
    }
    for count, text in enumerate(faults, start=1):
        live[0].write_text(text)
        secured.signal(signal.SIGHUP)
        line = await secured.logged("tls.certificate.refused", count=count)
        assert "the old one stays" in line["text"]
        assert str(live[0]) in line["text"]
        for address in tls_addresses(secured):
            assert await asyncio.to_thread(shown, address) == old


def test_the_files_are_watched_and_their_end_is_told(
    made: CertificateFiles, caplog: pytest.LogCaptureFixture
) -> None:
    from offhook.serving_certificate import ServingCertificate

    now = datetime.datetime.now(datetime.UTC)
    serving = ServingCertificate(made, clock=lambda: now)
    caplog.set_level("INFO", "offhook.tls")

    def events() -> list[str]:
        told = [getattr(record, "event", "") for record in caplog.records]
        caplog.clear()
        return told

    serving.look()
    assert events() == []
    for left, warned in (
        (22, 0),
        (21, 1),
        (20, 0),
        (7, 1),
        (5, 0),
        (1, 1),
        (0.5, 0),
        (-0.5, 1),
        (-0.7, 0),
        (-2, 1),
    ):
        now = serving.ends - datetime.timedelta(days=left)
        serving.look()
        assert events() == ["tls.certificate.ending"] * warned, left
        assert bool(serving.warnings()) == (left <= 21)
    # One that ended is not taken for one that is good.
    before = serving.ends
    now = datetime.datetime.now(datetime.UTC)
    issue_again(made.cert.parent)
    serving.look()
    assert events() == ["tls.certificate.loaded"]
    assert serving.ends >= before
    serving.look()
    assert events() == []
    now = serving.ends + datetime.timedelta(days=1)
    made.cert.touch()
    serving.look()
    assert events() == ["tls.certificate.refused", "tls.certificate.ending"]
