"""The development CA: a client that trusts it, and no other, can talk TLS to us by name and by address."""

import ssl

import pytest

from offhook.certificates import client_context, development_certificate, server_context


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    a = client.wrap_bio(to_client, to_server, server_hostname=name)
    b = server.wrap_bio(to_server, to_client, server_side=True)
    done: set[int] = set()
    for _ in range(10):
        for index, side in enumerate((a, b)):
            try:
                side.do_handshake()
                done.add(index)
            except ssl.SSLWantReadError:
                pass
        if len(done) == 2:
            return
    raise AssertionError("no handshake")


def test_names_and_addresses_are_trusted_by_the_ca_alone(tmp_path):
    files = development_certificate(tmp_path, ("localhost", "127.0.0.1", "sip.example.net"))
    server = server_context(files)
    for name in ("localhost", "127.0.0.1", "sip.example.net"):
        handshake(client_context(files.ca), server, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client_context(files.ca), server, "other.example.net")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client_context(None), server, "localhost")


def test_it_is_made_once_and_again_only_for_other_names(tmp_path):
    first = development_certificate(tmp_path, ("localhost",))
    ca, cert = first.ca.read_bytes(), first.cert.read_bytes()
    assert development_certificate(tmp_path, ("localhost",)).cert.read_bytes() == cert
    second = development_certificate(tmp_path, ("localhost", "127.0.0.1"))
    assert second.cert.read_bytes() != cert
    assert second.ca.read_bytes() == ca


def test_keys_are_readable_by_their_owner_only(tmp_path):
    development_certificate(tmp_path, ("localhost",))
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("server.key", "ca.key")} == {0o600}


def test_old_tls_is_refused(tmp_path):
    files = development_certificate(tmp_path, ("localhost",))
    assert server_context(files).minimum_version == ssl.TLSVersion.TLSv1_2
